"""Injects one fault into each run of nodetrust and its tool, and looks at what becomes of the node. See scripts/faults.

A run: a fresh overlay over a node root in a prepared state; one command under `inject`, with one fault; then what a user or a
DaemonSet would do, the same command again without faults. Invariants:

  during     every version of the bundle that appears loads in OpenSSL, and has every certificate that must always be there
  after      so does the one that the disturbed run leaves
  truth      a disturbed run that ends at exit 0, or an agent that says that it has converged, left what an undisturbed run leaves
  recovery   the next run ends at exit 0 and leaves exactly what an undisturbed run leaves, in every file that either has touched
"""

import argparse, ctypes, hashlib, itertools, json, multiprocessing, os, random, shutil, signal, socket, ssl, stat
import subprocess, sys, tempfile, threading, time, urllib.request

KINDS = {
    "changes": ["kill", "kill-agent", "kill-all", "EIO", "ENOSPC", "EACCES", "EROFS"],
    "reads": ["EIO", "ENOMEM"],
}
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
EXPORT = "var/lib/nodetrust/export/ca-certificates.crt"  # for pods
LEDGER = "var/lib/nodetrust/ledger.json"
LOCK = "run/nodetrust.lock"
KILLED = 128 + signal.SIGKILL  # how the injector ends when it has killed the program
LIMIT = 90  # seconds that anything may take
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, flags=0, data=None):
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    if LIBC.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]):
        raise OSError(ctypes.get_errno(), f"mount {target}")


def unmount(target):
    if LIBC.umount2(os.fsencode(target), 2):  # MNT_DETACH
        raise OSError(ctypes.get_errno(), f"umount {target}")


class Root:
    """An overlay over a node root, and over the states that were prepared before."""

    def __init__(self, base, lowers):
        self.base = base
        self.upper, self.path = f"{base}/upper", f"{base}/node"
        for name in ("upper", "work", "node"):
            os.makedirs(f"{base}/{name}")
        data = f"lowerdir={':'.join(lowers)},upperdir={self.upper},workdir={base}/work"
        mount("overlay", self.path, "overlay", 0, data)
        mount("proc", f"{self.path}/proc", "proc")
        mount("/dev", f"{self.path}/dev", None, 0x1000 | 0x4000)  # MS_BIND | MS_REC

    def close(self):
        for name in ("/dev", "/proc", ""):
            unmount(self.path + name)

    def touched(self):
        """Every path that is in the upper layer."""
        found = set()
        for folder, folders, files in os.walk(self.upper):
            place = os.path.relpath(folder, self.upper)
            found.update(os.path.normpath(f"{place}/{name}") for name in folders + files)
        return found

    def describe(self, path):
        """Kind, mode, owner and content of a path, without times; None if it is missing."""
        full = f"{self.path}/{path}"
        try:
            meta = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        owner = f"{stat.S_IMODE(meta.st_mode):o} {meta.st_uid}:{meta.st_gid}"
        if stat.S_ISLNK(meta.st_mode):
            return f"link to {os.readlink(full)}"
        if stat.S_ISDIR(meta.st_mode):
            return f"directory {owner}"
        if not stat.S_ISREG(meta.st_mode):
            return f"other {owner}"
        with open(full, "rb") as file:
            content = file.read()
        if path == LEDGER:
            return (owner, ledger(content))
        if path == LOCK:
            return f"lock {owner}"
        return f"file {owner} {hashlib.sha256(content).hexdigest()[:16]}"


def ledger(content):
    """The content of a ledger, without times."""
    try:
        value = json.loads(content)
        for name in ("updated", "changed", "published", "begun", "services", "tries"):
            value.pop(name, None)
        for source in value.get("sources", {}).values():
            source.pop("changed", None)
        for anchor in value.get("anchors", {}).values():
            anchor.pop("left", None)
            anchor.pop("der", None)
            if "gone" in anchor:
                anchor["gone"] = True
        return value
    except (ValueError, AttributeError) as error:
        return {"unreadable": str(error)}


def loaded(path):
    """The fingerprints of a bundle as OpenSSL loads it by Python; a sentence if it does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError) as error:
        return f"{type(error).__name__}: {error}"
    return {hashlib.sha256(der).hexdigest() for der in context.get_ca_certs(binary_form=True)}


def judged(path, always):
    """The fault of a bundle; None if it has none."""
    found = loaded(path)
    if isinstance(found, str):
        return f"{path} does not load: {found}"
    missing = always - found
    return f"{path} lacks {len(missing)} of {len(always)} certificates that must always be there" if missing else None


class Watch(threading.Thread):
    """Checks every version of the bundle, and of the one for pods, which may be missing."""

    def __init__(self, root, always):
        super().__init__(daemon=True)
        self.paths, self.always, self.wrong, self.done = [f"{root.path}/{BUNDLE}", f"{root.path}/{EXPORT}"], always, None, threading.Event()
        self.last = {self.paths[1]: None}
        self.start()

    def run(self):
        while not self.done.wait(0.002):
            self.look()

    def look(self):
        for path in self.paths:
            try:
                meta = os.stat(path)
                now = (meta.st_ino, meta.st_mtime_ns, meta.st_size)
            except OSError:
                now = None
            if path not in self.last or now != self.last[path]:
                self.last[path] = now
                if now or path == self.paths[0]:
                    found = judged(path, self.always)
                    gone = path != self.paths[0] and not os.path.exists(path)  # removed since the last look
                    self.wrong = self.wrong or (None if gone else found)

    def end(self):
        self.done.set()
        self.join()
        self.look()
        return self.wrong


class Case:
    """One command on one prepared state, with what an undisturbed run leaves."""

    def __init__(self, name, command, lowers, before, source):
        self.name, self.command, self.lowers, self.before, self.source = name, command, lowers, before, source


class Lab:
    """Shared by all runs: the programs, the node root, certificates, prepared states."""

    def __init__(self, options, base):
        self.options, self.base = options, base
        self.numbers = itertools.count()

    def folder(self):
        path = f"{self.base}/{os.getpid()}-{next(self.numbers)}"
        os.makedirs(path)
        return path

    def certificate(self, name):
        path = f"{self.base}/{name}.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "/dev/null",
                        "-subj", f"/CN=Faults {name}", "-days", "3650", "-out", path], check=True, capture_output=True)
        with open(path) as file:
            return file.read()

    def prepare(self):
        """The base state: five roots of the distribution; then the cases."""
        self.pem = {name: self.certificate(name) for name in "ABC"}
        folder = self.folder()
        root = Root(folder, [self.options.root])
        with open(f"{root.path}/etc/ca-certificates.conf", "r+") as file:
            names = [line for line in file if line.startswith("mozilla/")][:5]
            file.seek(0)
            file.truncate()
            file.writelines(names)
        subprocess.run(["chroot", root.path, "update-ca-certificates", "--fresh"], check=True, capture_output=True)
        self.foreign = loaded(f"{root.path}/{BUNDLE}")
        assert len(self.foreign) == 5, self.foreign
        root.close()
        plain = [f"{folder}/upper", self.options.root]

        folder = self.folder()
        root = Root(folder, plain)
        with Run(self, root, "AB") as run:
            done = run.nodetrust("apply")
        assert done.returncode == 0, done.stderr
        root.close()
        installed = [f"{folder}/upper", *plain]
        self.cases = [
            Case("apply", "apply", plain, "AB", "AB"),
            Case("rotate", "apply", installed, "BC", "BC"),
            Case("uninstall", "uninstall", installed, "AB", "AB"),
            Case("run", "run", installed, "AB", "BC"),
        ]
        self.cases = [case for case in self.cases if not self.options.case or case.name in self.options.case]
        for case in self.cases:
            self.reference(case)

    def always(self, case):
        """Certificates that the bundle must always have: the distribution's, and those wanted before and after."""
        kept = set() if case.command == "uninstall" or case.name == "apply" else {"B"}
        return self.foreign | {hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem[name])).hexdigest() for name in kept}

    def reference(self, case):
        """Runs without a fault: notes the result and the calls that it makes."""
        case.points = {}
        for kind in KINDS:
            root = Root(self.folder(), case.lowers)
            with Run(self, root, case.before) as run:
                code = run.inject(case, "count", 0, kind)
                found = run.finish()
                assert code == 0 and not found, f"{case.name} without a fault ends at {code}: {found} {run.words}"
                case.points[kind] = run.total
        case.reference, case.touched = root, root.touched()  # stays mounted: every run is compared with it


class Run:
    """A node root with configuration and source, and the process that runs on it."""

    def __init__(self, lab, root, source):
        self.lab, self.root = lab, root
        self.place = f"{root.base}/beside"
        os.makedirs(f"{self.place}/source")
        self.process, self.words, self.total, self.hit, self.call, self.findings = None, "", 0, False, "", False
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.configure()
        self.set_source(source)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.kill()  # an injector ends with its whole tree
            self.process.wait()

    def configure(self):
        text = (f"sources: [{{name: org, path: {self.place}/source}}]\nsettle: 100ms\nrotation: {{removalGrace: 0s}}\n"
                f"http: {{address: \"127.0.0.1:{self.port}\"}}\nkubernetes: {{enabled: false}}\nexport: {{bundle: ca-certificates.crt}}\n")
        with open(f"{self.place}/config.yaml", "w") as file:
            file.write(text)

    def set_source(self, names):
        with open(f"{self.place}/new", "w") as file:
            file.write("".join(self.lab.pem[name] for name in names))
        os.rename(f"{self.place}/new", f"{self.place}/source/ca.crt")

    def command(self, word):
        return [self.lab.options.nodetrust, "--config", f"{self.place}/config.yaml", "--host-root", self.root.path, word]

    def environment(self):
        return {"PATH": os.environ["PATH"], "NODE_NAME": "node"}

    def nodetrust(self, word):
        return subprocess.run(self.command(word), capture_output=True, text=True, env=self.environment(), timeout=LIMIT)

    def inject(self, case, fault, number, kind):
        """The case's command with one fault; its exit code. Of an agent: 0 if it converged, 2 if it has a finding, else how it died."""
        error = fault if not fault.startswith("E") else f"E{getattr(__import__('errno'), fault)}"
        waits = case.command == "run"
        words = [self.lab.options.inject, *(["-w"] if waits else []), error, str(number), kind, f"{self.place}/calls", "--", *self.command(case.command)]
        with open(f"{self.place}/output", "wb") as output:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment())
            try:
                code = self.follow(case) if waits else self.process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                code = "time-out"
        return code

    def finish(self):
        """Ends an agent that still runs, and reads the injector's count; returns the failure, or None."""
        code = self.stop() if self.process.poll() is None else 0
        with open(f"{self.place}/output", errors="replace") as output:
            self.words = output.read().strip()
        with open(f"{self.place}/calls", errors="replace") as lines:
            lines = lines.read().splitlines()
        last = lines[-1].split() if lines else []
        if last[:1] == ["total"]:
            self.total, self.hit = int(last[1]), last[3] == "1"
            self.call = lines[-2] if self.hit else ""
        elif lines:  # the injector was ended after it had hit
            self.hit, self.call = True, lines[-1]
        by_fault = self.hit and code == KILLED  # the call that it names is one that the agent makes while it stops
        return f"the agent ends at {code} on SIGTERM" if code != 0 and not by_fault else None

    def follow(self, case):
        """An agent at rest whose source changes."""
        self.await_converged(case.before)
        self.process.send_signal(signal.SIGUSR1)
        self.set_source(case.source)
        if not self.await_converged(case.source):
            return self.process.wait(LIMIT)
        return 2 if self.findings else 0  # the exit code of `apply`

    def await_converged(self, names):
        """Whether the agent says that it trusts these; False if it has ended."""
        wanted = {hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.lab.pem[name])).hexdigest() for name in names}
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            if self.process.poll() is not None:
                return False
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
                    status = json.load(answer)
                if status["converged"] and {row["sha256"] for row in status["anchors"]} == wanted:
                    self.findings = status["verdict"] != "trusted"
                    return True
            except (OSError, ValueError, KeyError):
                pass
            time.sleep(0.02)
        raise subprocess.TimeoutExpired("converging", LIMIT)

    def agent(self):
        """The agent's process below the injector, or itself; None if it has ended."""
        if self.process.args[0] != self.lab.options.inject:
            return self.process.pid
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
            children = file.read().split()
        return int(children[0]) if children else None

    def stop(self):
        """Ends the agent as the kubelet does."""
        agent = self.agent() if self.process.poll() is None else None
        if agent:
            os.kill(agent, signal.SIGTERM)
        return self.process.wait(LIMIT)

    def recover(self, case):
        """Runs again without faults, as the user or the DaemonSet does; returns the failure, or None."""
        if case.command != "run":
            done = self.nodetrust(case.command)
            return None if done.returncode == 0 else f"the next run ends at {done.returncode}: {(done.stdout + done.stderr).strip()[-600:]}"
        for _ in range(3):  # a killed agent may hold its port for a moment; the kubelet would try again too
            with open(f"{self.place}/output", "ab") as output:
                self.process = subprocess.Popen(self.command("run"), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment())
            try:
                if self.await_converged(case.source):
                    code = self.stop()
                    return None if code == 0 else f"the next agent ends at {code} on SIGTERM"
            except subprocess.TimeoutExpired:
                return f"the next agent has not converged within {LIMIT} s"
            time.sleep(1)
        return f"the next agent ends at {self.process.wait()}, again and again"


def differences(case, root):
    """The differences between a node and the result of a run without faults."""
    found = []
    for path in sorted(root.touched() | case.touched):
        wanted, there = case.reference.describe(path), root.describe(path)
        if path == LEDGER and isinstance(wanted, tuple) and isinstance(there, tuple):
            keys = sorted(key for key in wanted[1].keys() | there[1].keys() if wanted[1].get(key) != there[1].get(key))
            found.extend(f"/{path}: {key}: {str(there[1].get(key))[:300]}, not {str(wanted[1].get(key))[:300]}" for key in keys)
        elif wanted != there:
            found.append(f"/{path}: {there}, not {wanted}")
    return found


def one_run(lab, case, kind, number, fault):
    """Returns whether the fault was hit, the call, and violations."""
    root = Root(lab.folder(), case.lowers)
    wrong = []
    always = lab.always(case)
    try:
        with Run(lab, root, case.before) as run:
            watch = Watch(root, always)
            code = run.inject(case, fault, number, kind)
            if code == "time-out":
                wrong.append(f"the disturbed run has not ended, or not converged, within {LIMIT} s")
            found = judged(f"{root.path}/{BUNDLE}", always)
            if found:
                wrong.append(f"after: {found}")
            if code == 0:
                wrong.extend(f"truth: exit 0, but {line}" for line in differences(case, root))
            found = [run.finish(), run.recover(case)]
            wrong.extend(f"recovery: {line}" for line in found if line)
            found = watch.end()
            if found:
                wrong.append(f"during: {found}")
            wrong.extend(f"recovery: {line}" for line in differences(case, root))
            hit, call = run.hit, run.call
    finally:
        root.close()
        shutil.rmtree(root.base, ignore_errors=True)
    return hit, f"{call} -> {code}", wrong


def worker(lab, jobs, following, results, end):
    while not (end and time.monotonic() > end):
        with following.get_lock():
            index = following.value
            following.value += 1
        if index >= len(jobs):
            break
        case, kind, number, fault = jobs[index]
        try:
            results.put((case.name, kind, number, fault, *one_run(lab, case, kind, number, fault)))
        except Exception as error:  # an error of this program counts as a violation and must not hide others
            results.put((case.name, kind, number, fault, True, "", [f"the harness failed: {type(error).__name__}: {error}"]))
    results.put(None)


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "nodetrust", "inject"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--seconds", type=int, default=840)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--case", action="append", choices=["apply", "rotate", "uninstall", "run"])
    parser.add_argument("--point", help="CASE:CLASS:NUMBER:FAULT, the one to repeat")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    started = time.monotonic()
    if options.point:
        options.case = [options.point.split(":")[0]]

    base = tempfile.mkdtemp(prefix="faults-", dir="/tmp")
    mount("tmpfs", base, "tmpfs", 0, "mode=0755")
    lab = Lab(options, base)
    lab.prepare()
    chance = random.Random(seed)
    jobs = []
    for case in lab.cases:
        print(f"-- {case.name}: {case.points['changes']} changes, {case.points['reads']} reads", flush=True)
        for kind, faults in KINDS.items():
            for number in range(1, case.points[kind] + 1):
                chosen = faults if options.all else [faults[(number + seed) % len(faults)]]
                jobs.extend((case, kind, number, fault) for fault in chosen)
    points = sum(sum(case.points.values()) for case in lab.cases)
    if options.point:
        name, kind, number, fault = options.point.split(":")
        jobs = [(lab.cases[0], kind, int(number), fault)]
    chance.shuffle(jobs)
    print(f"-- {points} points, {len(jobs)} runs to do, seed {seed}", flush=True)

    following, results = multiprocessing.Value("l", 0), multiprocessing.Queue()
    end = None if options.all or options.point else started + options.seconds
    workers = [multiprocessing.Process(target=worker, args=(lab, jobs, following, results, end)) for _ in range(2)]
    for process in workers:
        process.start()
    runs = hits = violations = ended = 0
    while ended < len(workers):
        result = results.get()
        if result is None:
            ended += 1
            continue
        name, kind, number, fault, hit, call, wrong = result
        runs += 1
        hits += hit
        if options.point:
            print(f"{name}:{kind}:{number}:{fault}  {call}")
        if wrong:
            violations += 1
            print(f"VIOLATION {name}:{kind}:{number}:{fault}  {call}", *(f"  {line}" for line in wrong[:12]), sep="\n", flush=True)
    for process in workers:
        process.join()
    seconds = time.monotonic() - started
    print(f"{points} points, {runs} runs of {len(jobs)} ({hits} hit a call), {seconds:.0f} s, {violations} violations, seed {seed}")
    # A run in which no fault was hit proves nothing.
    sys.exit(0 if violations == 0 and hits > 0 and hits * 2 > runs else 1)


if __name__ == "__main__":
    # This process inherits the machine's trust settings; the runs must not.
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        os.environ.pop(name, None)
    multiprocessing.set_start_method("fork")
    main()
