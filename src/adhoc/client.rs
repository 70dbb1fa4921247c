//! `rathole client --to ...`.

#[cfg(feature = "client")]
use std::collections::BTreeMap;

#[cfg(feature = "client")]
use rathole::config::{Client, ClientKind, ClientService, ClientTransport, Noise, Secret, TcpOptions};

use super::*;

/// Runs it until a signal.
pub fn run_client(plan: ClientPlan) -> Exit {
    #[cfg(feature = "client")]
    return run(plan);
    #[cfg(not(feature = "client"))]
    {
        let _ = plan;
        crate::cli::needs("client", "client")
    }
}

#[cfg(feature = "client")]
fn run(plan: ClientPlan) -> Exit {
    crate::log::init("info", plan.visitor_log);
    let token = match plan.token.read() {
        Ok(Some(token)) => token,
        Ok(None) => {
            return refuse(
                "a token is missing: set RATHOLE_TOKEN, or use '--token-file PATH' ('-' is stdin) or '--token-env NAME'; \
                 the server printed it or was given it",
                Exit::Usage,
            );
        }
        Err(why) => return refuse(&why, Exit::Config),
    };
    if plan.pin.is_none() && !is_local(&plan.to) {
        tracing::warn!("--plain-tcp: everybody on the way to {} can read and change what is sent", plan.to);
    }
    match crate::instance::Plan::new(None, Some(config(plan, token))) {
        Ok(plan) => plan.run(None, &|_| (), &|key, message| format!("error: {key}: {message}")),
        Err(faults) => {
            for (key, message) in faults {
                let key = if key.ends_with(".remote_public_key") { "--noise-pin" } else { &key };
                refuse(&format!("{key}: {message}"), Exit::Config);
            }
            Exit::Config
        }
    }
}

#[cfg(feature = "client")]
fn is_local(to: &rathole::config::Endpoint) -> bool {
    use rathole::config::Host;
    match &to.host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => name == "localhost",
    }
}

#[cfg(feature = "client")]
fn config(plan: ClientPlan, token: Secret) -> Client {
    let transport = match plan.pin {
        None => ClientTransport::Tcp,
        Some(pin) => ClientTransport::Noise(Noise {
            pattern: rathole::config::DEFAULT_NOISE_PATTERN.to_owned(),
            local_private_key: None,
            remote_public_key: Some(pin),
        }),
    };
    let tcp = TcpOptions::default();
    let mut services = BTreeMap::new();
    for service in plan.services {
        let kind = if service.udp { ClientKind::Udp { prefer_ipv6: false } } else { ClientKind::Tcp };
        let config = ClientService {
            name: service.name.clone(),
            local_addr: service.addr,
            kind,
            token: token.clone(),
            nodelay: tcp.nodelay,
            retry_interval: RETRY_INTERVAL,
        };
        services.insert(service.name, config);
    }
    Client {
        remote_addr: plan.to,
        transport,
        tcp,
        proxy: None,
        heartbeat_timeout: Some(HEARTBEAT_TIMEOUT),
        handshake_timeout: HANDSHAKE_TIMEOUT,
        shutdown_grace: SHUTDOWN_GRACE,
        token_grace: rathole::config::DEFAULT_TOKEN_GRACE,
        services,
    }
}
