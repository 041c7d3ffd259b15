//! A connected stream to an agent: TCP by address or name, TLS over it, or a socket of this host. It never uses a proxy: a plugin
//! inherits its environment from the runtime, whose proxy is for image registries.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::resolve;
use super::transport::{CONNECT, Failure, Transport};
use super::url::Place;
use crate::Error;

/// Any of the streams. One type for all, so that the HTTP client is compiled once.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Keepalive: the first probe of a silent connection comes after this,
const IDLE: Duration = Duration::from_secs(10);
/// the next ones at this interval,
const AGAIN: Duration = Duration::from_secs(5);
/// and after so many probes without an answer the connection is dead. Sent data is not waited for any longer, either.
const TIMES: u32 = 3;

/// Lets the kernel find dead connections: the agent's machine is gone, a firewall forgot the connection, or this host lost its
/// address. A blocking query sends nothing for minutes, so nothing else would find out.
fn notice_silence(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, IDLE)?;
    sockopt::set_tcp_keepintvl(stream, AGAIN)?;
    sockopt::set_tcp_keepcnt(stream, TIMES)?;
    let limit = IDLE + AGAIN * TIMES;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limit.as_millis()).unwrap_or(u32::MAX))
}

impl Transport {
    pub(super) async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = match &self.url.place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.map_err(|error| self.refused(error.to_string()))?;
                return Ok(Box::new(stream));
            }
            Place::Address(address, port) => self.tcp([SocketAddr::new(*address, *port)]).await?,
            Place::Name(host, port) => {
                let found = resolve::addresses(host).await;
                let found = found.map_err(|cause| self.refused(cause))?;
                let found = found
                    .into_iter()
                    .map(|address| SocketAddr::new(address, *port));
                self.tcp(found).await?
            }
        };
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let stream = tls.connector.connect(tls.server_name.clone(), stream).await;
        let stream = stream.map_err(|error| self.failure(&error))?;
        Ok(Box::new(stream))
    }

    /// The first of `addresses` that accepts.
    async fn tcp(
        &self,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<TcpStream, Failure> {
        let limit = CONNECT / 2;
        let mut causes = Vec::new();
        let mut late = false;
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A request is one small write; waiting for more to send with it would only delay it.
                    let _ = stream.set_nodelay(true);
                    // Without keepalive a silent connection only lasts longer.
                    let _ = notice_silence(&stream);
                    return Ok(stream);
                }
                Ok(Err(error)) => causes.push(format!("{address}: {error}")),
                Err(_) => {
                    late = true;
                    causes.push(format!("{address}: no connection within {limit:.1?}"));
                }
            }
        }
        match self.refused(causes.join(", ")) {
            Failure::Refused(error) if late => Err(Failure::Unsent(error)),
            failure => Err(failure),
        }
    }

    fn refused(&self, cause: String) -> Failure {
        let url = self.url();
        Failure::Refused(Error::Unreachable { url, cause })
    }
}
