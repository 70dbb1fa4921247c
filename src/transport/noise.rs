//! TEMPORARY, branch `cli` only: as much of Noise's interface as the command line uses. Replaced at merge.
#![allow(missing_docs)]
use crate::config::{self, Secret};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
pub struct Keypair {
    pub private: Secret,
    pub public: [u8; 32],
}
impl Keypair {
    pub fn generate() -> std::io::Result<Keypair> {
        Ok(Keypair { private: Secret::new([1u8; 32]), public: [2; 32] })
    }
}
pub fn public_key(private: &[u8]) -> Option<[u8; 32]> {
    private.try_into().ok()
}
pub fn to_base64(key: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(key)
}
#[derive(Debug)]
pub struct Stream(TcpStream);
impl Stream {
    pub fn tcp(&self) -> &TcpStream {
        &self.0
    }
}
impl tokio::io::AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        b: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, b)
    }
}
impl tokio::io::AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, b: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, b)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
#[derive(Debug, Clone)]
pub struct Acceptor;
impl Acceptor {
    pub fn new(_: &config::Noise) -> Result<Self, super::SettingError> {
        Ok(Acceptor)
    }
    pub async fn accept(&self, tcp: TcpStream) -> std::io::Result<Stream> {
        Ok(Stream(tcp))
    }
}
#[derive(Debug, Clone)]
pub struct Connector;
impl Connector {
    pub fn new(_: &config::Noise) -> Result<Self, super::SettingError> {
        Ok(Connector)
    }
    pub async fn connect(&self, tcp: TcpStream) -> std::io::Result<Stream> {
        Ok(Stream(tcp))
    }
}
