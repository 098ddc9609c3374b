//! The conformance kit on a real member and on a real cluster, which every fault case has to itself.

mod space;

use locks_backend_etcd::EtcdBackend;
use space::{Making, Sound, Space};

/// Three members, of which one can be missing.
struct Three;

impl Making for Three {
    const NAME: &'static str = "etcd-cluster";
    const CLUSTER: bool = true;
    type Made = EtcdBackend;

    fn make(backend: EtcdBackend) -> EtcdBackend {
        backend
    }
}

locks_conformance::main!(Space<Sound>, Space<Three>);
