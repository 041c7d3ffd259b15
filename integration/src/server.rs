//! A TCP server inside a network namespace of the laboratory, run by threads of the test process.
//!
//! Each connection gets a thread that lives in that namespace too, so a handler may connect onwards.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::namespace::Net;

/// A listening server; stops listening when dropped.
pub struct Server {
    listener: TcpListener,
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
        let stopping = Arc::new(AtomicBool::new(false));
        let (ready, listening) = mpsc::channel();
        let acceptor = {
            let (stopping, answer) = (stopping.clone(), Arc::new(answer));
            std::thread::spawn(move || {
                net.enter();
                let listener = match TcpListener::bind(address) {
                    Ok(listener) => listener,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let _ = ready.send(listener.try_clone());
                for connection in listener.incoming() {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(connection) = connection else { continue };
                    let answer = answer.clone();
                    std::thread::spawn(move || answer(connection));
                }
            })
        };
        let listener = match listening.recv() {
            Ok(Ok(listener)) => listener,
            failure => panic!("cannot listen on {address}: {failure:?}"),
        };
        Server {
            listener,
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
        // Wakes the thread that waits in accept, so that it sees the flag.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
