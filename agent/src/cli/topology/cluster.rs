//! The way to the API server by the user's kubeconfig, and the list of its Nodes.
//!
//! Whole Nodes are asked for, since metadata alone have no conditions; but page by page, and of each only what concerns us is kept.

use std::{
    env,
    error::Error,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST, HeaderValue, USER_AGENT},
};
use kube::{
    Config,
    client::{Body, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use nodetrust_core::{certificate::name::visible, node_status::NodeObject, topology::Member};
use serde::Deserialize;
use tokio::net::TcpStream;

use super::proxy::is_direct;
use crate::{
    cli::arguments::ClusterAccess, error::chain, kubernetes::USER_AGENT_NAME, query::query_value, resolve::lookup,
};

/// The namespace of the shipped manifests.
const NAMESPACE: &str = "nodetrust";
/// What a pod calls its cluster.
const IN_POD: &str = "this cluster";
/// Nodes in one page.
const PAGE: usize = 500;
/// Largest page, in bytes: 500 Nodes of 50 images each are about 15 MiB.
const PAGE_LIMIT: usize = 128 << 20;
/// Most nodes in a cluster.
const NODES: usize = 100_000;
/// How often the list is begun anew because the server forgot where we were.
const RESTARTS: usize = 3;
/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const ADDRESSES: usize = 4;
/// How long one page may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest text of the server that is quoted, in characters.
const SHOWN: usize = 300;
/// What may list nodes, for an administrator to run.
const GRANT: &str = "an administrator can allow it with `kubectl create clusterrole nodetrust-topology --verb=list --resource=nodes` and \
                     `kubectl create clusterrolebinding nodetrust-topology --clusterrole=nodetrust-topology --user=NAME`";
/// What to do where this runs in a pod, such as an agent's.
const NOT_HERE: &str = "agents may not list Nodes, so that a node that was taken over learns nothing of the others: run this on your own machine, \
                        with a kubeconfig that may list Nodes";

/// A cluster that can be asked.
pub(super) struct Cluster {
    /// What the user calls it: the context.
    pub(super) name: String,
    /// Where nodetrust is installed.
    pub(super) namespace: String,
    pub(super) server: String,
    pub(super) client: kube::Client,
}

/// One page of the list.
#[derive(Deserialize)]
struct NodePage {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<NodeObject>,
}

#[derive(Deserialize, Default)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// What came of asking for a page.
enum ApiAnswer {
    Page(NodePage),
    /// 410: the place in the list is no longer known.
    Gone,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is asked yet, but for the addresses of the server's name.
    pub(super) async fn connect(access: &ClusterAccess) -> anyhow::Result<Self> {
        let (name, mut config) = configuration(access).await?;
        let server = config.cluster_url.to_string();
        // that of a kubeconfig's context is the user's own, that of a pod is where nodetrust is
        let in_pod = name == IN_POD;
        let usual = || if in_pod { config.default_namespace.clone() } else { NAMESPACE.to_owned() };
        let namespace = access.namespace.clone().unwrap_or_else(usual);
        config.connect_timeout = Some(CONNECT);
        find_server(&mut config).await?;
        let builder = ClientBuilder::try_from(config)
            .map_err(|error| anyhow!("the kubeconfig's context {name} cannot be used: {}", causes(&error)))?;
        Ok(Self { name, namespace, server, client: builder.build() })
    }

    /// Every node.
    pub(super) async fn members(&self) -> anyhow::Result<Vec<Member>> {
        for _ in 0..=RESTARTS {
            if let Some(members) = self.list().await? {
                return Ok(members);
            }
        }
        bail!(
            "failed to list the nodes: {} forgot its place in the list {} times (410 Gone); its etcd is compacted faster than it \
             sends {PAGE} nodes: try again when it has less to do",
            self.server,
            RESTARTS + 1
        )
    }

    /// The list from its beginning; None if the server forgot where we were.
    async fn list(&self) -> anyhow::Result<Option<Vec<Member>>> {
        let mut members = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let page = match self.page(next.as_deref()).await? {
                ApiAnswer::Page(page) => page,
                ApiAnswer::Gone => return Ok(None),
            };
            members.extend(page.items.into_iter().map(Member::of));
            if members.len() > NODES {
                bail!("failed to list the nodes: {} sends more than {NODES}", self.server);
            }
            let before = next;
            next = page.metadata.next.filter(|next| !next.is_empty());
            if next.is_none() {
                return Ok(Some(members));
            }
            if next == before {
                bail!("failed to list the nodes: {} sends the same page again and again", self.server);
            }
        }
    }

    async fn page(&self, next: Option<&str>) -> anyhow::Result<ApiAnswer> {
        let mut path = format!("/api/v1/nodes?limit={PAGE}");
        if let Some(next) = next {
            path.push_str("&continue=");
            path.extend(query_value(next));
        }
        let request = Request::get(path).header(ACCEPT, "application/json").header(USER_AGENT, USER_AGENT_NAME);
        let request = request.body(Body::empty())?;
        let exchange = async {
            let response = self.client.send(request).await.map_err(|error| self.no_answer(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), PAGE_LIMIT).collect().await;
            anyhow::Ok((status, body.map(http_body_util::Collected::to_bytes)))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| {
            anyhow!(
                "failed to list the nodes: {} did not send {PAGE} of them within {} s",
                self.server,
                PATIENCE.as_secs()
            )
        })??;
        if status == StatusCode::GONE && next.is_some() {
            return Ok(ApiAnswer::Gone);
        }
        if !status.is_success() {
            return Err(self.refused(status, &body.unwrap_or_default()));
        }
        let body = body.map_err(|error| {
            anyhow!("failed to list the nodes: the answer of {} was cut off: {}", self.server, causes(&*error))
        })?;
        let page = serde_json::from_slice(&body).map_err(|error| {
            anyhow!("failed to list the nodes: what {} sends is no list of nodes: {error}", self.server)
        })?;
        Ok(ApiAnswer::Page(page))
    }

    fn no_answer(&self, error: &dyn Error) -> anyhow::Error {
        anyhow!("failed to list the nodes: no answer from {} (context {}): {}", self.server, self.name, causes(error))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> anyhow::Error {
        let advice = match status {
            StatusCode::FORBIDDEN if self.name == IN_POD => NOT_HERE,
            StatusCode::FORBIDDEN => GRANT,
            StatusCode::UNAUTHORIZED => "log in again, or choose another --context",
            StatusCode::NOT_FOUND => "is that the address of an API server?",
            _ => "try again",
        };
        let message = words_of_refusal(body);
        anyhow!("failed to list the nodes: {} answers {}{message}; {advice}", self.server, status.as_u16())
    }
}

/// The message of a `Status` object, behind a colon; nothing if there is none.
pub(crate) fn words_of_refusal(body: &[u8]) -> String {
    let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = answer.as_ref().and_then(|answer| answer.get("message")?.as_str()).unwrap_or_default();
    if message.is_empty() { String::new() } else { format!(": {}", shown(message)) }
}

/// Reads a page of the list, for tests/fuzz: its nodes, and where the next page begins.
pub(crate) fn read_page(body: &[u8]) -> Option<(Vec<Member>, Option<String>)> {
    let page: NodePage = serde_json::from_slice(body).ok()?;
    Some((page.items.into_iter().map(Member::of).collect(), page.metadata.next))
}

/// The kubeconfig that was named, the user's own, or what a pod has; in kubectl's order.
async fn configuration(access: &ClusterAccess) -> anyhow::Result<(String, Config)> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let home = set("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let own = set("KUBECONFIG").is_some() || home.is_some_and(|path| path.exists());
    let kubeconfig = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)
            .map_err(|error| anyhow!("the kubeconfig {} cannot be used: {}", path.display(), causes(&error)))?,
        None if own => Kubeconfig::from_env()
            .and_then(|found| found.map_or_else(Kubeconfig::read, Ok))
            .map_err(|error| anyhow!("your kubeconfig cannot be used: {}", causes(&error)))?,
        None if access.context.is_none() && set("KUBERNETES_SERVICE_HOST").is_some() => {
            let config = Config::incluster()
                .map_err(|error| anyhow!("the pod's service account is not usable: {}", causes(&error)))?;
            return Ok((IN_POD.into(), config));
        }
        None => bail!("there is no kubeconfig: name one with --kubeconfig or $KUBECONFIG, or put it at ~/.kube/config"),
    };
    let name = access.context.clone().or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let has_proxy = has_proxy(&kubeconfig, &name);
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| anyhow!("context `{name}` of the kubeconfig cannot be used: {}", causes(&error)))?;
    let no_proxy = ["NO_PROXY", "no_proxy"].into_iter().find_map(|name| env::var(name).ok()).unwrap_or_default();
    if !has_proxy && is_direct(config.cluster_url.host().unwrap_or_default(), &no_proxy) {
        config.proxy_url = None; // kube has compared NO_PROXY with the proxy's own name
    }
    Ok((name, config))
}

/// Whether the kubeconfig itself names a proxy for a context's cluster.
fn has_proxy(kubeconfig: &Kubeconfig, context: &str) -> bool {
    let cluster = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == context)
        .and_then(|named| named.context.as_ref())
        .map(|context| &context.cluster);
    let cluster = kubeconfig.clusters.iter().find(|named| Some(&named.name) == cluster);
    cluster.and_then(|named| named.cluster.as_ref()?.proxy_url.as_ref()).is_some_and(|url| !url.is_empty())
}

/// Looks up the server's name by ourselves: a static program must not have the C library do it, which would load what nsswitch.conf
/// of this machine names. The name stays what the certificate and the request are about.
async fn find_server(config: &mut Config) -> anyhow::Result<()> {
    let through = config.proxy_url.as_ref().unwrap_or(&config.cluster_url);
    let host = through.host().unwrap_or_default().to_owned();
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let addresses = lookup(&host).await.map_err(|why| anyhow!("failed to find `{host}` of the kubeconfig: {why}"))?;
    let Some(address) = reachable(&addresses, through).await else {
        bail!("failed to find `{host}` of the kubeconfig: it has no address")
    };
    let with_address = |url: &Uri| -> anyhow::Result<Uri> {
        let scheme = url.scheme_str().unwrap_or("https");
        let port = port(url);
        let user = url
            .authority()
            .and_then(|authority| authority.as_str().rsplit_once('@'))
            .map(|(user, _)| format!("{user}@"));
        let at = SocketAddr::new(address, port);
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let text = format!("{scheme}://{}{at}{path}", user.unwrap_or_default());
        text.parse().with_context(|| format!("`{host}` of the kubeconfig has an address that fits no URL"))
    };
    match &config.proxy_url {
        Some(proxy) => config.proxy_url = Some(with_address(proxy)?),
        None => {
            let authority = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
            config.headers.push((HOST, HeaderValue::from_str(&authority)?));
            config.tls_server_name.get_or_insert(host.clone());
            config.cluster_url = with_address(&config.cluster_url)?;
        }
    }
    Ok(())
}

/// The first address that takes connections; if none does, the first, so that the failure is told of it.
async fn reachable(addresses: &[IpAddr], url: &Uri) -> Option<IpAddr> {
    for address in addresses.iter().take(ADDRESSES) {
        let connect = TcpStream::connect(SocketAddr::new(*address, port(url)));
        if let Ok(Ok(_)) = tokio::time::timeout(CONNECT / 2, connect).await {
            return Some(*address);
        }
    }
    addresses.first().copied()
}

fn port(url: &Uri) -> u16 {
    url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 })
}

/// An error with all its causes, bounded and on one line.
pub(super) fn causes(error: &dyn Error) -> String {
    shown(&chain(error))
}

fn shown(text: &str) -> String {
    visible(&text.replace(['\n', '\t'], " ")).chars().take(SHOWN).collect()
}
