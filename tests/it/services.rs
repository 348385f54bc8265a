//! The host's services as the agent sees and restarts them: real systemd over its real bus, real containerd over CRI. The library is
//! called from here, with the root of a booted machine as the host's root.

use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    thread,
    time::Duration,
};

use nodetrust::{
    host::{
        http::HttpError,
        root::HostRoot,
        systemd::{self, JobResult, ServiceError, Unit},
    },
    runtime::{
        cri::{self, CriError},
        docker,
    },
};

use crate::support::{
    machine::{Machine, MachineKind},
    wait_for,
};

/// Longest wait for events that take milliseconds; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
const CONTAINERD: &str = "containerd.service";
const SOCKET: &str = "/run/containerd/containerd.sock";

fn host(machine: &Machine) -> HostRoot {
    HostRoot::open(&machine.root()).unwrap()
}

#[track_caller]
fn unit(root: &HostRoot, name: &str) -> Option<Unit> {
    systemd::units(root, &[name], LIMIT).unwrap().remove(name)
}

/// What systemctl says of a unit's property.
#[track_caller]
fn shown(machine: &Machine, name: &str, property: &str) -> String {
    machine.run(&["systemctl", "show", "--property", property, "--value", name]).expect(0).out.trim().to_owned()
}

/// Makes a service of the machine that cannot be started while /run/broken is there, and does not get ready while /run/slow is.
#[track_caller]
fn make_probe(machine: &Machine) {
    let text = "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=1h\n\
                [Service]\nType=notify\nNotifyAccess=all\nRestartSec=1234ms\nTimeoutStartSec=1h\n\
                ExecStartPre=/usr/bin/test ! -e /run/broken\n\
                ExecStart=/bin/sh -c \"test -e /run/slow || systemd-notify --ready; exec sleep infinity\" and some words\n\
                [Install]\nWantedBy=multi-user.target\nAlias=probe-alias.service\n";
    machine.write("/etc/systemd/system/probe.service", text);
    machine.run(&["systemctl", "enable", "--now", "probe"]).expect(0);
}

fn reads_units(kind: MachineKind) {
    let machine = Machine::boot(kind);
    make_probe(&machine);
    let root = host(&machine);
    let journal = || machine.run(&["journalctl", "-o", "cat", "_PID=1"]).expect(0).out;
    let before = journal();
    let names =
        [CONTAINERD, "probe.service", "probe-alias.service", "default.target", "nosuch.service", "crio.service"];
    let units = systemd::units(&root, &names, LIMIT).unwrap();
    assert_eq!(journal(), before, "asking is not to be seen in the journal");
    let known: Vec<&str> = units.keys().map(String::as_str).collect();
    assert_eq!(known, [CONTAINERD, "default.target", "probe-alias.service", "probe.service"]);

    let containerd = &units[CONTAINERD];
    assert_eq!(containerd.name, CONTAINERD);
    assert_eq!((containerd.active_state.as_str(), containerd.sub_state.as_str()), ("active", "running"));
    assert_eq!(containerd.main_pid.unwrap().to_string(), shown(&machine, CONTAINERD, "MainPID"));
    assert_eq!(containerd.invocation, shown(&machine, CONTAINERD, "InvocationID"));
    assert_eq!(containerd.invocation.len(), 32);
    assert_eq!(containerd.control_group, shown(&machine, CONTAINERD, "ControlGroup"));
    assert_eq!(containerd.kill_mode, "process");
    assert_eq!(containerd.restart_delay, Duration::from_secs(5));
    assert_eq!(containerd.command, ["/usr/bin/containerd"]);
    assert_eq!((containerd.result.as_str(), containerd.restarts, containerd.has_job), ("success", 0, false));
    let started = shown(&machine, CONTAINERD, "ExecMainStartTimestampMonotonic");
    assert_eq!(containerd.started.unwrap().as_micros().to_string(), started);

    let probe = &units["probe.service"];
    assert_eq!(units["probe-alias.service"], *probe);
    assert_eq!(probe.name, "probe.service");
    assert_eq!(probe.kill_mode, "control-group");
    assert_eq!(probe.restart_delay, Duration::from_millis(1234));
    assert_eq!(probe.command[..2], ["/bin/sh", "-c"]);
    assert_eq!(probe.command[3..], ["and", "some", "words"]);
    assert_ne!(units["default.target"].name, "default.target", "a target is no service and has its own name");
    assert_eq!(units["default.target"].main_pid, None);
}

#[test]
fn systemd_252_tells_about_units() {
    reads_units(MachineKind::Bookworm);
}

#[test]
fn systemd_257_tells_about_units() {
    reads_units(MachineKind::Trixie);
}

#[test]
fn a_restart_is_done_when_it_says_so_and_nine_do_not_meet_the_start_limit() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let root = host(&machine);
    let container = machine.container();
    let process = machine.process(&container);
    let connections = || machine.run(&["busctl", "list", "--unique", "--no-legend"]).expect(0).out.lines().count();
    let connected = connections();
    let mut before = unit(&root, CONTAINERD).unwrap();
    for _ in 0..9 {
        assert_eq!(systemd::try_restart(&root, CONTAINERD, LIMIT).unwrap(), JobResult::Done);
        let after = unit(&root, CONTAINERD).unwrap();
        assert_eq!((after.active_state.as_str(), after.restarts, after.has_job), ("active", 0, false));
        assert_ne!(after.invocation, before.invocation);
        assert_ne!(after.main_pid, before.main_pid);
        assert!(after.started > before.started);
        before = after;
    }
    machine.wait_runtime();
    assert_eq!(machine.process(&container), process, "the container did not live on");
    wait_for("the end of our connections to the bus", LIMIT, || (connections() == connected).then_some(()));
}

#[test]
fn a_restart_tells_how_it_went_wrong() {
    let machine = Machine::boot(MachineKind::Trixie);
    make_probe(&machine);
    let root = host(&machine);
    let state = || unit(&root, "probe.service").unwrap();

    // An alias works as well.
    let before = state();
    assert_eq!(systemd::try_restart(&root, "probe-alias.service", LIMIT).unwrap(), JobResult::Done);
    assert_ne!(state().invocation, before.invocation);

    // The unit allows three starts an hour.
    for _ in 0..9 {
        assert_eq!(systemd::try_restart(&root, "probe.service", LIMIT).unwrap(), JobResult::Done);
    }
    assert_eq!((state().active_state.as_str(), state().restarts), ("active", 0));

    machine.write("/run/broken", "");
    assert_eq!(systemd::try_restart(&root, "probe.service", LIMIT).unwrap(), JobResult::Failed("failed".into()));
    let failed = state();
    assert_eq!((failed.active_state.as_str(), failed.result.as_str()), ("failed", "exit-code"));
    assert_eq!(failed.main_pid, None);

    // A unit that does not run is not started; systemd reports the job as done.
    machine.run(&["rm", "/run/broken"]).expect(0);
    assert_eq!(systemd::try_restart(&root, "probe.service", LIMIT).unwrap(), JobResult::Done);
    let left = state();
    assert_eq!((left.active_state.as_str(), left.main_pid), ("inactive", None));

    machine.run(&["systemctl", "start", "probe"]).expect(0);
    machine.write("/run/slow", "");
    let error = systemd::try_restart(&root, "probe.service", Duration::from_secs(10)).unwrap_err();
    assert_eq!(error.to_string(), "restarting probe.service had no answer after 10 s");
    assert!(error.next().contains("may still be done"));
    let waiting = state();
    assert_eq!(waiting.active_state, "activating");
    assert!(waiting.has_job);

    let error = systemd::try_restart(&root, "nosuch.service", LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "restarting nosuch.service failed: Unit nosuch.service not found.");
}

#[test]
fn a_bus_that_refuses_or_is_gone_is_named_with_advice() {
    let machine = Machine::boot(MachineKind::Bookworm);
    let root = host(&machine);
    let deny = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
                \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig><policy context=\"mandatory\">\
                <deny send_interface=\"org.freedesktop.systemd1.Manager\" send_member=\"TryRestartUnit\"/></policy></busconfig>\n";
    machine.write("/etc/dbus-1/system.d/deny.conf", deny);
    machine
        .run(&[
            "dbus-send",
            "--system",
            "--print-reply",
            "--dest=org.freedesktop.DBus",
            "/",
            "org.freedesktop.DBus.ReloadConfig",
        ])
        .expect(0);
    let before = unit(&root, CONTAINERD).unwrap();
    let error = systemd::try_restart(&root, CONTAINERD, LIMIT).unwrap_err();
    assert!(matches!(error, ServiceError::Refused { uid: 0, .. }), "{error:?}");
    assert!(error.to_string().starts_with("restarting containerd.service was refused to uid 0: "), "{error}");
    assert!(error.next().contains("AppArmor") && error.next().contains("spc_t"), "{}", error.next());
    assert_eq!(unit(&root, CONTAINERD).unwrap(), before);

    machine.run(&["systemctl", "stop", "dbus.socket", "dbus.service"]).expect(0);
    let error = systemd::units(&root, &[CONTAINERD], LIMIT).unwrap_err();
    assert!(matches!(error, ServiceError::NoBus), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the host's D-Bus system bus does not run: nobody listens at /run/dbus/system_bus_socket"
    );
    machine.run(&["rm", "-r", "/run/systemd/system"]).expect(0);
    let error = systemd::units(&root, &[CONTAINERD], LIMIT).unwrap_err();
    assert_eq!(error.to_string(), "the host does not run systemd: it has no /run/systemd/system");
}

fn looks(kind: MachineKind, version: &str) {
    let machine = Machine::boot_with_config_path(kind, "/etc/containerd/certs.d");
    let root = host(&machine);
    let before = cri::look(&root, SOCKET, LIMIT).unwrap();
    assert_eq!(before.runtime, "containerd");
    assert!(before.version.trim_start_matches('v').starts_with(version), "{}", before.version);
    assert_eq!((&before.runtime_ready, &before.network_ready, &before.image_service), (&Ok(()), &Ok(()), &Ok(())));
    assert_eq!(before.running.len(), 0);

    let container = machine.container();
    let after = cri::look(&root, SOCKET, LIMIT).unwrap();
    assert_eq!(after.running.len(), 1);
    let listed = machine.run(&["ctr", "-n", "k8s.io", "containers", "ls", "-q"]).expect(0).out;
    assert!(listed.lines().any(|id| after.running.contains(id)), "{listed}");
    assert!(machine.process(&container).is_some());

    let image = machine.push("app:1");
    let error = cri::pull(&root, SOCKET, &image, LIMIT).unwrap_err();
    let CriError::Call { call: "PullImage", source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("x509: certificate signed by unknown authority"), "{source}");
    machine.write("/etc/containerd/certs.d/_default/registry.crt", machine.registry_ca());
    let reference = cri::pull(&root, SOCKET, &image, LIMIT).unwrap();
    assert!(reference.contains("sha256:"), "{reference}");

    machine.run(&["systemctl", "stop", "containerd"]).expect(0);
    let error = cri::look(&root, SOCKET, LIMIT).unwrap_err();
    assert!(matches!(error, CriError::Connect { .. } | CriError::NoSocket { .. }), "{error:?}");
}

#[test]
fn containerd_1_6_says_how_it_is_and_pulls() {
    looks(MachineKind::Bookworm, "1.6.");
}

#[test]
fn containerd_1_7_says_how_it_is_and_pulls() {
    looks(MachineKind::Trixie, "1.7.");
}

#[test]
fn containerd_2_1_says_how_it_is_and_pulls() {
    looks(MachineKind::Containerd21, "2.1.");
}

/// With `mirrors` and `config_path` both set, containerd starts, stays up, and serves no CRI or half of it.
#[test]
fn a_containerd_whose_cri_plugin_does_not_load_is_told_from_a_healthy_one() {
    for kind in [MachineKind::Bookworm, MachineKind::Trixie, MachineKind::Containerd21] {
        let machine = Machine::boot_with_config_path(kind, "/etc/containerd/certs.d");
        let root = host(&machine);
        let mut config = machine.read("/etc/containerd/config.toml").unwrap();
        config.push_str("\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"registry.test:5443\"]\nendpoint = [\"https://registry.test:5443\"]\n");
        machine.write("/etc/containerd/config.toml", config);
        assert_eq!(systemd::try_restart(&root, CONTAINERD, LIMIT).unwrap(), JobResult::Done);
        let sick = wait_for("an answer", LIMIT, || match cri::look(&root, SOCKET, LIMIT) {
            Err(CriError::Connect { .. }) => None,
            result => Some(result),
        });
        assert_eq!(unit(&root, CONTAINERD).unwrap().active_state, "active");
        match sick {
            Err(error @ CriError::NotLoaded { .. }) => {
                assert!(error.next().contains("`mirrors` and `config_path`"), "{}", error.next());
            }
            Ok(status) => {
                let error = status.image_service.unwrap_err();
                assert!(error.starts_with("UNIMPLEMENTED"), "{error}");
            }
            Err(error) => panic!("{kind:?}: {error:?}"),
        }
    }
}

fn root_with(dirs: &[&str]) -> (tempfile::TempDir, HostRoot) {
    let dir = tempfile::tempdir().unwrap();
    for name in dirs {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let root = HostRoot::open(dir.path()).unwrap();
    (dir, root)
}

/// A real dbus-daemon's absence, and sockets behind which nobody is or nobody answers.
#[test]
fn sockets_without_an_answer_end_the_wait() {
    let (dir, root) = root_with(&["run/systemd/system", "run/dbus", "run/containerd"]);
    assert!(matches!(systemd::units(&root, &[CONTAINERD], LIMIT), Err(ServiceError::NoBus)));
    assert!(matches!(cri::look(&root, SOCKET, LIMIT), Err(CriError::NoSocket { .. })));
    assert!(matches!(docker::info(&root, LIMIT), Err(HttpError::NoSocket { .. })));

    let path = |of: &str| dir.path().join(of.trim_start_matches('/'));
    let sockets = [systemd::BUS, SOCKET, docker::SOCKET].map(|of| UnixListener::bind(path(of)).unwrap());
    let short = Duration::from_millis(200);
    assert!(matches!(systemd::units(&root, &[CONTAINERD], short), Err(ServiceError::TimedOut { .. })));
    assert!(matches!(cri::look(&root, SOCKET, short), Err(CriError::TimedOut { .. })));
    assert!(matches!(docker::info(&root, short), Err(HttpError::TimedOut { .. })));

    drop(sockets);
    assert!(matches!(systemd::units(&root, &[CONTAINERD], LIMIT), Err(ServiceError::NoBus)));
    assert!(matches!(cri::look(&root, SOCKET, LIMIT), Err(CriError::Connect { .. })));
    assert!(matches!(docker::info(&root, LIMIT), Err(HttpError::Connect { .. })));
}

/// A simulated Docker engine: one canned answer.
fn simulated_docker(root: &Path, answer: &'static str) -> thread::JoinHandle<String> {
    let path = root.join(docker::SOCKET.trim_start_matches('/'));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            request.extend(byte);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    })
}

#[test]
fn a_simulated_docker_engine_is_asked_for_live_restore() {
    let (dir, root) = root_with(&["run"]);
    for (answer, live_restore) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"ServerVersion\":\"27.5.1\",\"LiveRestoreEnabled\":true}",
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"ServerVersion\":\"27.5.1\",\"LiveRestoreEnabled\":true}",
            Some(true),
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"ServerVersion\":\"27.5.1\",\"LiveRestoreEnabled\":false}",
            Some(false),
        ),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", None),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[]", None),
        ("nonsense\r\n\r\n", None),
        ("", None),
    ] {
        let engine = simulated_docker(dir.path(), answer);
        let info = docker::info(&root, LIMIT);
        let request = engine.join().unwrap();
        assert!(request.starts_with("GET /info HTTP/1.1\r\n"), "{request}");
        assert_eq!(info.as_ref().ok().map(|info| info.live_restore_enabled), live_restore, "{info:?}");
        assert!(info.is_err() || info.unwrap().server_version == "27.5.1");
    }
}
