//! The anchors as configuration for the first boot of a node, and the certificates in such configuration.
//!
//! In: the anchors that the sources and the policy want. Out: one text for each [`RenderFormat`], always the same for the same set.
//! The other way round: [`find`] reads the certificates in the template of a node, and [`check`] compares them with the set.
//!
//! A system with a shell gets `first_boot.sh`, filled in by [`script`]; most formats carry that script. It writes what the agent would
//! write, so the agent takes the files over as its own.

mod bottlerocket;
pub mod check;
mod comment;
pub mod find;
mod first_boot;
mod format;
mod ignition;
mod script;
mod systemd;
mod unpack;
mod yaml;

pub use first_boot::FirstBoot;
pub use format::{BadRenderFormat, RenderFormat};
pub use systemd::apply_unit;

/// The set in a format.
pub fn render(set: &FirstBoot<'_>, format: RenderFormat) -> String {
    match format {
        RenderFormat::Kubeadm => yaml::kubeadm(set),
        RenderFormat::CloudInit => yaml::cloud_init(set),
        RenderFormat::EksAl2023 => script::mime(set),
        RenderFormat::Bottlerocket => bottlerocket::settings(set),
        RenderFormat::Talos => yaml::talos(set),
        RenderFormat::Ignition => ignition::config(set),
        RenderFormat::Script => script::script(set),
        RenderFormat::TrustManager => yaml::trust_manager(set),
        RenderFormat::Systemd => apply_unit(),
    }
}

#[cfg(test)]
mod tests;
