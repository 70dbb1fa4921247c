//! One clear line for a failed handshake.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};
use x509_cert::der::DateTime;

use super::handshake::Failure;

/// For a server: what the client did.
pub fn accept(failure: Failure) -> io::Error {
    match failure {
        Failure::Io(fault) => socket(fault, "the client"),
        Failure::Tls(Error::AlertReceived(alert)) => failed(match alert {
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired => {
                format!("the client does not believe this server's certificate ({alert:?})")
            }
            alert => format!("the client refused TLS ({alert:?})"),
        }),
        Failure::Tls(fault) => failed(general(fault, "the client")),
    }
}

/// For a client: why the server, asked for as `name`, is not believed.
pub fn connect(failure: Failure, name: &str) -> io::Error {
    match failure {
        Failure::Io(fault) => socket(fault, "the server"),
        Failure::Tls(Error::InvalidCertificate(fault)) => failed(certificate(fault, name)),
        Failure::Tls(Error::AlertReceived(alert)) => failed(match alert {
            AlertDescription::ProtocolVersion => {
                "the server speaks neither TLS 1.2 nor 1.3 (it refused both)".to_owned()
            }
            AlertDescription::UnrecognisedName => format!("the server has no certificate for {name}"),
            alert => format!("the server refused TLS ({alert:?})"),
        }),
        Failure::Tls(fault) => failed(general(fault, "the server")),
    }
}

fn failed(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn socket(fault: io::Error, peer: &str) -> io::Error {
    let message = match fault.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("{peer} closed the connection during the TLS handshake; does it speak TLS?")
        }
        _ => format!("the TLS handshake with {peer} failed: {fault}"),
    };
    io::Error::new(fault.kind(), message)
}

fn general(fault: Error, peer: &str) -> String {
    match fault {
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge
            | InvalidMessage::InvalidEmptyPayload,
        ) => format!(
            "{peer} does not speak TLS: is its transport another one, or does something on the way answer (a captive \
             portal)?"
        ),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => format!("{peer} speaks neither TLS 1.2 nor 1.3"),
        Error::PeerIncompatible(
            PeerIncompatible::NoCipherSuitesInCommon | PeerIncompatible::NoKxGroupsInCommon,
        ) => format!("{peer} has no cipher in common with us; it must offer ECDHE with AES-GCM or ChaCha20"),
        Error::DecryptError => format!("a TLS record of {peer} was altered on its way"),
        fault => format!("the TLS handshake with {peer} failed: {fault}"),
    }
}

fn certificate(fault: CertificateError, name: &str) -> String {
    match fault {
        CertificateError::UnknownIssuer => {
            "the server's certificate is signed by an unknown authority: put its CA into trusted_root"
                .to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the server's certificate expired on {}", day(not_after))
        }
        CertificateError::Expired => "the server's certificate has expired".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the server's certificate is valid only from {} on; is the clock right?", day(not_before))
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
            "the server's certificate is not valid for {name}: it has no subjectAltName (a name in CN alone does not \
             count); make it anew with one"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the server's certificate is not valid for {name}, only for {}; set hostname to one of these",
            presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
        ),
        CertificateError::NotValidForName => format!("the server's certificate is not valid for {name}"),
        CertificateError::Other(fault) if fault.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is a CA's own (a captive portal answers like that, too); if it is your server's, \
             put this very certificate into trusted_root to trust it"
                .to_owned()
        }
        fault => format!("the server's certificate is refused: {fault}"),
    }
}

/// `DnsName("a")` becomes `a`.
fn bare(presented: &str) -> &str {
    presented.split_once('(').map_or(presented, |(_, rest)| rest.trim_end_matches(')')).trim_matches('"')
}

fn day(time: UnixTime) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(time.as_secs());
    match DateTime::from_system_time(time) {
        Ok(date) => format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
        Err(_) => "a day beyond the calendar".to_owned(),
    }
}
