//! The runtime's own answer about a server, beside what programs on the host make of it.

use super::verdict::{Probe, ProbeFinding, ProbeReason, ProbeVerdict, Through};
use crate::runtime::{
    pull_answer::RefusedServer,
    witness::{Witness, WitnessAnswer},
};

/// What a runtime testifies of a registry.
#[derive(Debug, Clone, Copy)]
pub struct Testimonial<'a> {
    /// The runtime's unit.
    pub unit: &'a str,
    /// What it answered.
    pub witness: &'a Witness,
    /// Whose certificate it refuses.
    pub refused: Option<&'a RefusedServer>,
    /// Why the answer says nothing of the registry's CA.
    pub unverified: Option<&'a str>,
}

impl Testimonial<'_> {
    /// What it means for the registry, where programs on the host trust the server or do not.
    fn verdict(&self, on_host: bool) -> (ProbeVerdict, Option<ProbeFinding>) {
        let Self { unit, witness, unverified, .. } = self;
        let words = &witness.words;
        match (witness.answer, unverified) {
            (WitnessAnswer::Trusts, None) => (ProbeVerdict::Trusted, None),
            (WitnessAnswer::Trusts, Some(why)) => {
                let text = format!("pulls by {unit} work, which does not prove that it trusts the CA: {why}");
                let next =
                    "if its CA is to count, have the runtime ask it by TLS that is verified, and without a mirror";
                (ProbeVerdict::PullsWork, Some(ProbeFinding::new(ProbeReason::NotVerified, text, next)))
            }
            (WitnessAnswer::Refuses, _) => {
                let text = format!("{unit} refuses it: {words}");
                let (verdict, next) = match on_host {
                    true => (
                        ProbeVerdict::NotTrustedByRuntime,
                        format!(
                            "`nodetrust status` says whether a restart of {unit} follows; if it was restarted already, look at the \
                             certificates that it takes for this registry beside the bundle"
                        ),
                    ),
                    false => (ProbeVerdict::NotTrusted, String::new()),
                };
                (verdict, Some(ProbeFinding::new(ProbeReason::RuntimeRefuses, text, next)))
            }
            (WitnessAnswer::NotReached, _) => {
                let text = format!("{unit} has not reached it: {words}");
                let next =
                    format!("look at name and port, at the registry, and at the proxy in the environment of {unit}");
                (ProbeVerdict::NotReached, Some(ProbeFinding::new(ProbeReason::RuntimeNotReached, text, next)))
            }
        }
    }

    /// A note where it refuses the certificate of another server than the registry.
    fn other_server(&self, registry: &str) -> Option<String> {
        match self.refused? {
            RefusedServer::Server(server) if server != registry => {
                Some(format!("the certificate that it refuses is that of {server}, to which {registry} leads"))
            }
            RefusedServer::Proxy => Some("the certificate that it refuses is that of its proxy".to_owned()),
            RefusedServer::Server(_) | RefusedServer::Unnamed => None,
        }
    }
}

impl Probe {
    /// The answer of the runtime about the registry `target`; `self` is what programs on the host make of the server whose certificate
    /// counts: of the one that the runtime refuses, else of the registry.
    #[must_use]
    pub fn through_runtime(self, target: &str, testimonial: Testimonial<'_>) -> Self {
        let (verdict, finding) = testimonial.verdict(self.is_trusted());
        let mut notes: Vec<String> = testimonial.other_server(target).into_iter().collect();
        notes.push(match self.is_trusted() {
            true => format!("programs on this host trust {}: {}", self.target, self.text),
            false => format!("for programs on this host {} is {}: {}", self.target, self.verdict.as_str(), self.text),
        });
        notes.extend(self.notes);
        // what helps programs on the host helps the runtime
        let next = if verdict == ProbeVerdict::NotTrusted { self.next } else { Vec::new() };
        let Testimonial { unit, witness, .. } = testimonial;
        let probe = Self {
            target: target.to_owned(),
            through: Through::Runtime,
            verdict: ProbeVerdict::Trusted,
            reason: None,
            text: format!("{unit} asked it and got its answer: {}", witness.words),
            notes,
            next: Vec::new(),
            ..self
        };
        let mut probe = Self { verdict, ..probe.refused(finding) };
        probe.next.extend(next);
        probe
    }

    /// A registry about which the runtime cannot be asked.
    pub fn without_runtime(target: &str, why: &str) -> Self {
        let next = "look at the line RUNTIME of `nodetrust status`";
        let probe = Self { through: Through::Runtime, ..Self::named(target.to_owned()) };
        let refused = probe.refused([ProbeFinding::new(ProbeReason::RuntimeNotReached, why, next)]);
        Self { verdict: ProbeVerdict::NotReached, ..refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        certificate::fingerprint::SetDigest,
        probe::{Failure, Target},
        runtime::process::ServiceProcess,
        testing::at,
        time::Uptime,
    };

    const REGISTRY: &str = "registry.corp:443";
    const UNIT: &str = "containerd.service";

    fn host(verdict: ProbeVerdict) -> Probe {
        let probe = Probe::named("registry.corp:443".to_owned());
        match verdict {
            ProbeVerdict::Trusted => Probe { text: "by \"Corp\"".into(), ..probe },
            _ => probe.refused([ProbeFinding::new(ProbeReason::Expired, "it has expired", "renew it")]),
        }
    }

    fn witness(answer: WitnessAnswer) -> Witness {
        let started = Uptime { boot_id: "boot".into(), milliseconds: 1 };
        Witness {
            process: ServiceProcess { invocation: "i".into(), started },
            set: SetDigest::of(&[].into()),
            answer,
            words: "its words".into(),
            verifies_tls: true,
            anchor: None,
            own_roots: true,
            handshake_error: None,
            at: at(1, 1, "boot"),
            restarted: None,
        }
    }

    fn asked(
        on_host: ProbeVerdict,
        answer: WitnessAnswer,
        refused: Option<&RefusedServer>,
        unverified: Option<&str>,
    ) -> Probe {
        let witness = witness(answer);
        host(on_host).through_runtime(REGISTRY, Testimonial { unit: UNIT, witness: &witness, refused, unverified })
    }

    #[test]
    fn what_the_runtime_says_decides_and_what_the_host_says_stands_beside_it() {
        let good = asked(ProbeVerdict::Trusted, WitnessAnswer::Trusts, None, None);
        assert!(good.is_trusted() && good.next.is_empty());
        assert_eq!(good.text, "containerd.service asked it and got its answer: its words");
        assert_eq!(good.notes, ["programs on this host trust registry.corp:443: by \"Corp\""]);

        // somebody's certificate in a registry directory: pulls work, programs on the host fail
        let only_pulls = asked(ProbeVerdict::NotTrusted, WitnessAnswer::Trusts, None, None);
        assert!(only_pulls.is_trusted());
        assert_eq!(only_pulls.notes, ["for programs on this host registry.corp:443 is not-trusted: it has expired"]);

        let stale = asked(ProbeVerdict::Trusted, WitnessAnswer::Refuses, None, None);
        assert_eq!(
            (stale.verdict, stale.reason),
            (ProbeVerdict::NotTrustedByRuntime, Some(ProbeReason::RuntimeRefuses))
        );
        assert!(stale.next[0].contains("restart"), "{:?}", stale.next);

        let bad = asked(ProbeVerdict::NotTrusted, WitnessAnswer::Refuses, None, None);
        assert_eq!((bad.verdict, bad.reason), (ProbeVerdict::NotTrusted, Some(ProbeReason::RuntimeRefuses)));
        assert_eq!(bad.next, ["renew it"], "a restart does not help");

        let down = asked(ProbeVerdict::Trusted, WitnessAnswer::NotReached, None, None);
        assert_eq!((down.verdict, down.reason), (ProbeVerdict::NotReached, Some(ProbeReason::RuntimeNotReached)));
    }

    #[test]
    fn an_answer_that_proves_no_trust_is_not_told_as_trust() {
        let mirror = asked(ProbeVerdict::Trusted, WitnessAnswer::Trusts, None, Some("a mirror"));
        assert_eq!((mirror.verdict, mirror.reason), (ProbeVerdict::PullsWork, Some(ProbeReason::NotVerified)));
        assert!(!mirror.is_trusted() && mirror.text.ends_with("a mirror"), "{}", mirror.text);
        let nobody = Probe::without_runtime(REGISTRY, "there is no runtime");
        assert_eq!((nobody.verdict, nobody.through), (ProbeVerdict::NotReached, Through::Runtime));
    }

    #[test]
    fn a_refusal_of_another_server_names_it() {
        let token = RefusedServer::Server("token.corp:443".into());
        let probe = asked(ProbeVerdict::Trusted, WitnessAnswer::Refuses, Some(&token), None);
        assert_eq!(
            probe.notes[0],
            "the certificate that it refuses is that of token.corp:443, to which registry.corp:443 leads"
        );
        let own = RefusedServer::Server(REGISTRY.into());
        assert_eq!(asked(ProbeVerdict::Trusted, WitnessAnswer::Refuses, Some(&own), None).notes.len(), 1);
        let proxy = asked(ProbeVerdict::Trusted, WitnessAnswer::Refuses, Some(&RefusedServer::Proxy), None);
        assert_eq!(proxy.notes[0], "the certificate that it refuses is that of its proxy");
        let failed = Probe::not_reached(&Target::parse(REGISTRY).unwrap(), &Failure::NotTls);
        assert_eq!(failed.through, Through::Host);
    }
}
