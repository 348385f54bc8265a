//! Tests of the whole program. One binary, one module a subject.

#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod support;

// the main job on real distribution roots, and the exact footprint there
mod roots;
// stores whose distribution is not at hand
mod families;
// what a node can run out of
mod limits;
// what lies at the names that we use
mod own_names;
// the stores over p11-kit, over each generation of their scripts, with the manifest's rights
mod stories;
// which store a node has, with faults and contradictions
mod witness;
// another store on a living node
mod leave;
// the bundle for pods
mod export;
// certificates from elsewhere, with OpenSSL as the judge
mod corpus;
// what OpenSSL, GnuTLS, Python and Go make of certificates and bundles, real and mutated
mod readers;

// the agent: healing, fights, restarts, reload, silent sources, commands beside it
mod agent;

// what the API server's audit log says of agents at rest; among the first by its name, since it watches for three minutes
mod at_rest;

// what scripts/faults has found
mod faults;

// the new program over what an older one has left
mod upgrade;

// kill -9 of the agent and of the tool at any moment
mod crash;

// somebody else runs the tool all the time
mod race;

// sources as they are in clusters: kubelet volumes, Secrets, shuffled bundles, odd files
mod sources;

// /metrics in both formats, golden and valid
mod metrics;

// every path, refusals, slow clients, HTTPS
mod http;
// IPv4, IPv6, both or one of them
mod listen;
// strangers on the agent's port
mod hostile;
// what a writer of the configuration reaches
mod reach;
// what is known of the runtime, and what is not
mod evidence;
// `probe` and the agent's own probes, against real TLS servers
mod probe;
// `probe` beside real OpenSSL and Go, on CAs with every oddity
mod oddities;
// texts of megabytes and control characters, wherever they are told
mod hostile_texts;
mod pulls;
// the registry directory of a booted node: what it makes up for, and what hides it
mod certs_d;
// when a booted node's runtime is restarted, and when it is not
mod restarts;
// layouts composed by a seed, judged by a real pull
mod layouts;
// Docker, OpenRC, and distributions with a containerd of their own
mod runtimes;
// what the process of a runtime reads, and what it does not
mod runtime_files;
// which runtime a node has, and what speaks of one where none is found
mod runtime_choice;
// the layouts of k3s, RKE2, k0s and MicroK8s
mod distributions;
// the runtime is asked itself: what it answers, what a registry sees of that, and that nothing stays
mod witnesses;
// what people and scripts read of `inspect`
mod inspect;
// the exact footprint on a host, and that nothing of it stays
mod footprint;
// roots that are damaged, mixed up, forbidden, or unreadable for one program or all
mod anchors;
// where the distributions' tools go wrong, and what stands in the way on real nodes
mod tools;

// booted nodes with systemd and containerd: what a private CA does to pulls there
mod nodes;

// what the cluster is told, and that nothing waits for it
mod kubernetes;

// services of a booted node: systemd over its bus, the container runtime over CRI
mod services;

// the fleet, as an API server shows it
mod topology;
// a rotation over several nodes, as topology sees it
mod fleet;
// the screen of a node, by kubectl exec and in debug pods
mod debug;
// the reference pages beside the program: fields, defaults, metrics, names, examples
mod docs;
// what people install, as two ages of kubectl and helm render it
mod manifests;
// the same in a cluster: the first install, who may do what, and how it goes again
mod cluster;
// and when something fails there: nodes that come, reboot or are cut off, an API server that is gone or refuses
mod outages;
