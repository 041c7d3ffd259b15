//! A TCP server inside a network namespace of the laboratory, run by threads of the test process.
//!
//! Each connection gets a thread that lives in that namespace too, so a handler may connect onwards.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::space::Net;

/// A listening server; stops listening when dropped.
pub struct Server {
    net: Arc<Net>,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `address` in `net`; `answer` gets each connection on a thread of its own.
    #[track_caller]
    pub fn start(
        net: Net,
        address: SocketAddr,
        answer: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Server {
        let net = Arc::new(net);
        let stopping = Arc::new(AtomicBool::new(false));
        let (ready, listening) = mpsc::channel();
        let acceptor = {
            let (net, stopping, answer) = (net.clone(), stopping.clone(), Arc::new(answer));
            std::thread::spawn(move || {
                net.enter();
                let listener = TcpListener::bind(address);
                let _ = ready.send(listener.as_ref().map(|_| ()).map_err(ToString::to_string));
                let Ok(listener) = listener else { return };
                for connection in listener.incoming().flatten() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let answer = answer.clone();
                    std::thread::spawn(move || answer(connection));
                }
            })
        };
        match listening.recv() {
            Ok(Ok(())) => {}
            failure => panic!("cannot listen on {address}: {failure:?}"),
        }
        Server {
            net,
            address,
            stopping,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        // One more connection wakes the thread that waits in accept, so that it sees the flag.
        let _ = self
            .net
            .run(|| TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
