//! Which socket the kubelet uses, by its command line and its files (kubelet(1), `KubeletConfiguration`).

use super::containerd::option;

/// Where the socket of pulls stands on a command line; where it does not, the one of the runtime is used for them too.
const PULLS: [&str; 1] = ["image-service-endpoint"];
const RUNTIME: [&str; 1] = ["container-runtime-endpoint"];
/// The socket of the kubelet's own shim for Docker, in Kubernetes up to 1.23.
const DOCKERSHIM: &str = "/run/dockershim.sock";

/// The socket that a command line names: the kubelet's, or that of k3s and RKE2, which have the option as well.
pub fn endpoint_of_command(command: &[String]) -> Option<String> {
    let named = option(command, &PULLS).or_else(|| option(command, &RUNTIME)).and_then(socket_path);
    let by_shim = || option(command, &["container-runtime"]).filter(|runtime| *runtime == "docker");
    named.or_else(|| by_shim().map(|_| DOCKERSHIM.to_owned()))
}

/// The socket that `/var/lib/kubelet/kubeadm-flags.env` names: one assignment, whose value is a piece of a command line in quotes.
pub fn endpoint_of_flags(text: &str) -> Option<String> {
    let is_space = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'');
    let value = text.split_once('=')?.1;
    // what stands first on a command line is the program
    let words: Vec<String> = std::iter::once("kubelet").chain(value.split(is_space)).map(str::to_owned).collect();
    endpoint_of_command(&words)
}

/// The path of a socket that is written as `unix:///run/a.sock`, `unix:/run/a.sock` or `/run/a.sock`, from `/run` also where it is
/// written from `/var/run`. None if it is no such socket.
pub fn socket_path(endpoint: &str) -> Option<String> {
    let path = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return None;
    }
    let path = format!("/{}", path.trim_start_matches('/'));
    Some(path.strip_prefix("/var/run/").map_or_else(|| path.clone(), |rest| format!("/run/{rest}")))
}

/// The socket of an option of k0s: `--cri-socket=remote:unix:///run/a.sock`.
pub fn endpoint_of_k0s(command: &[String]) -> Option<String> {
    let (_, socket) = option(command, &["cri-socket"])?.split_once(':')?;
    socket_path(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_kubelet_s_socket_is_found_in_every_form() {
        let of = |line| endpoint_of_command(&words(line));
        let containerd = Some("/run/containerd/containerd.sock".to_owned());
        assert_eq!(of("kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock --v=2"), containerd);
        assert_eq!(of("kubelet --container-runtime-endpoint unix:///var/run/containerd/containerd.sock"), containerd);
        assert_eq!(of("kubelet --container-runtime-endpoint=/run/containerd/containerd.sock"), containerd);
        let split =
            "kubelet --container-runtime-endpoint=unix:///run/a.sock --image-service-endpoint=unix:///run/b.sock";
        assert_eq!(of(split), Some("/run/b.sock".into()), "who pulls counts");
        assert_eq!(of("kubelet --container-runtime=docker"), Some("/run/dockershim.sock".into()));
        assert_eq!(of("kubelet --container-runtime=remote"), None);
        assert_eq!(of("kubelet --container-runtime-endpoint=tcp://127.0.0.1:1"), None);
        assert_eq!(of("kubelet --container-runtime-endpoint="), None);
        assert_eq!(of("kubelet"), None);
    }

    #[test]
    fn the_flags_of_kubeadm_are_read() {
        let text = "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/crio/crio.sock --pod-infra-container-image=a\"\n";
        assert_eq!(endpoint_of_flags(text), Some("/run/crio/crio.sock".into()));
        assert_eq!(endpoint_of_flags("KUBELET_KUBEADM_ARGS=\"--v=2\""), None);
        assert_eq!(endpoint_of_flags(""), None);
    }

    #[test]
    fn a_runtime_that_k0s_did_not_start_is_found() {
        let of = |line| endpoint_of_k0s(&words(line));
        assert_eq!(of("k0s worker --cri-socket=remote:unix:///run/crio/crio.sock"), Some("/run/crio/crio.sock".into()));
        assert_eq!(of("k0s worker --cri-socket docker:unix:///var/run/docker.sock"), Some("/run/docker.sock".into()));
        assert_eq!(of("k0s worker"), None);
    }
}
