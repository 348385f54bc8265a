/* inject: makes the n-th system call of a whole process tree fail, or kills a process there.
 *
 *   inject [-w] MODE N CLASS LOG -- PROGRAM [ARG...]
 *
 * MODE   count        only count, and log every call
 *        kill         SIGKILL to the process that makes the call
 *        kill-agent   SIGKILL to PROGRAM; what it has started goes on
 *        kill-all     SIGKILL to every process of the tree, in one instant
 *        E<number>    the call is not made and fails with this errno
 * CLASS  changes      calls that can change something, of PROGRAM and of all that it starts
 *        reads        calls that only look, of PROGRAM alone (its other processes of the same file included)
 * LOG    one line for each call that counts (in mode count) or that was hit, then `total N hit 0|1`
 * -w     count only after SIGUSR1
 *
 * The order of calls is the order in which the kernel stops the processes of the tree here, so n means the same moment in each run
 * as long as the processes do the same. strace's `when=` counts for each process apart, and so misses most moments.
 * How it works: a seccomp filter stops each call of interest (SECCOMP_RET_TRACE), and this program traces all processes.
 * The exit status is PROGRAM's own, 128 + signal if it was killed; 95 to 99 are failures of this program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __aarch64__
#include <elf.h>
#include <asm/ptrace.h>
#ifndef NT_ARM_SYSTEM_CALL
#define NT_ARM_SYSTEM_CALL 0x404
#endif
#endif

enum { FAIL_WAIT = 95, FAIL_SEIZE, FAIL_EXEC, FAIL_FILTER, FAIL_USAGE };

/* Which arguments of a call hold its paths and descriptors. */
enum shape { NONE, FD, PATH0, PATH1, PATHS01, PATHS02, PATHS13, OPEN, OPENAT, OPENAT2 };

struct call_kind {
  long number;
  const char *name;
  enum shape shape;
  bool reads;
};

#define CHANGES(name, shape) { SYS_##name, #name, shape, false }
#define READS(name, shape) { SYS_##name, #name, shape, true }

/* Opening counts as a change or a read by its flags. */
static const struct call_kind kinds[] = {
#ifdef SYS_open /* the older calls, which arm64 does not have */
  CHANGES(open, OPEN), CHANGES(creat, PATH0), CHANGES(rename, PATHS01), CHANGES(unlink, PATH0), CHANGES(rmdir, PATH0),
  CHANGES(mkdir, PATH0), CHANGES(chmod, PATH0), CHANGES(chown, PATH0), CHANGES(link, PATHS01), CHANGES(symlink, PATHS01),
  CHANGES(fork, NONE), CHANGES(vfork, NONE), READS(readlink, PATH0), READS(stat, PATH0), READS(lstat, PATH0),
  READS(access, PATH0),
#endif
#ifdef SYS_renameat
  CHANGES(renameat, PATHS13),
#endif
  CHANGES(openat, OPENAT), CHANGES(openat2, OPENAT2), CHANGES(write, FD), CHANGES(pwrite64, FD), CHANGES(writev, FD),
  CHANGES(fsync, FD), CHANGES(fdatasync, FD), CHANGES(renameat2, PATHS13), CHANGES(unlinkat, PATH1), CHANGES(mkdirat, PATH1),
  CHANGES(fchmod, FD), CHANGES(fchmodat, PATH1), CHANGES(fchown, FD), CHANGES(fchownat, PATH1), CHANGES(linkat, PATHS13),
  CHANGES(symlinkat, PATHS02), CHANGES(ftruncate, FD), CHANGES(truncate, PATH0), CHANGES(utimensat, PATH1),
  CHANGES(copy_file_range, FD), CHANGES(sendfile, FD), CHANGES(flock, FD), CHANGES(chroot, PATH0), CHANGES(clone, NONE),
  CHANGES(clone3, NONE), CHANGES(execve, PATH0), CHANGES(pipe2, NONE),
  READS(read, FD), READS(pread64, FD), READS(fstat, FD), READS(newfstatat, PATH1), READS(statx, PATH1), READS(getdents64, FD),
  READS(readlinkat, PATH1), READS(faccessat, PATH1), READS(faccessat2, PATH1),
};
enum { KINDS = sizeof kinds / sizeof kinds[0], TEXT = 200 };

/* --- registers --------------------------------------------------------------------------------------------------------- */

struct call {
  long number;
  unsigned long argument[6];
};

#if defined __x86_64__
static bool read_call(pid_t pid, struct call *call) {
  struct user_regs_struct regs;
  if (ptrace(PTRACE_GETREGS, pid, 0, &regs)) return false;
  *call = (struct call){ (long)regs.orig_rax, { regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9 } };
  return true;
}

/* Has the call not be made, and return -error. */
static void refuse(pid_t pid, int error) {
  struct user_regs_struct regs;
  if (ptrace(PTRACE_GETREGS, pid, 0, &regs)) return;
  regs.orig_rax = (unsigned long)-1;
  regs.rax = (unsigned long)-(long)error;
  ptrace(PTRACE_SETREGS, pid, 0, &regs);
}
#elif defined __aarch64__
static bool read_call(pid_t pid, struct call *call) {
  struct user_pt_regs regs;
  struct iovec place = { &regs, sizeof regs };
  if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &place)) return false;
  call->number = (long)regs.regs[8];
  for (int i = 0; i < 6; i++) call->argument[i] = regs.regs[i];
  return true;
}

static void refuse(pid_t pid, int error) {
  struct user_pt_regs regs;
  struct iovec place = { &regs, sizeof regs };
  int none = -1;
  struct iovec number = { &none, sizeof none };
  if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &place)) return;
  regs.regs[0] = (unsigned long)-(long)error;
  ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &place);
  ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &number);
}
#else
#error "only x86-64 and arm64"
#endif

/* --- what a call works on ---------------------------------------------------------------------------------------------- */

/* Copies a string of the traced process; shorter where it ends before a page that is not there. */
static void read_text(pid_t pid, unsigned long address, char text[TEXT]) {
  memset(text, 0, TEXT);
  for (size_t length = TEXT - 1; length > 0; length /= 2) {
    struct iovec here = { text, length }, there = { (void *)address, length };
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) > 0) break;
  }
  for (char *at = text; *at; at++)
    if ((unsigned char)*at <= ' ') *at = '~';
}

static void read_link(pid_t pid, const char *what, long number, char text[TEXT]) {
  char path[64];
  if (number < 0) snprintf(path, sizeof path, "/proc/%d/%s", pid, what);
  else snprintf(path, sizeof path, "/proc/%d/%s/%ld", pid, what, number);
  ssize_t length = readlink(path, text, TEXT - 1);
  text[length > 0 ? length : 0] = 0;
}

struct subject {
  char one[TEXT], two[TEXT];
  bool reads, ignored;
};

/* The paths and descriptors of a call, and whether it only reads. */
static struct subject subject_of(pid_t pid, const struct call *call, const struct call_kind *kind) {
  struct subject subject = { .reads = kind->reads };
  const unsigned long *argument = call->argument;
  unsigned long flags = 0;
  switch (kind->shape) {
  case NONE: break;
  case FD:
    read_link(pid, "fd", (long)(int)argument[0], subject.one);
    subject.ignored = strstr(subject.one, "eventfd") || strstr(subject.one, "anon_inode"); /* wakes a thread, nothing else */
    break;
  case PATH0: read_text(pid, argument[0], subject.one); break;
  case PATH1: read_text(pid, argument[1], subject.one); break;
  case PATHS01: read_text(pid, argument[0], subject.one); read_text(pid, argument[1], subject.two); break;
  case PATHS02: read_text(pid, argument[0], subject.one); read_text(pid, argument[2], subject.two); break;
  case PATHS13: read_text(pid, argument[1], subject.one); read_text(pid, argument[3], subject.two); break;
  case OPEN: flags = argument[1]; read_text(pid, argument[0], subject.one); break;
  case OPENAT: flags = argument[2]; read_text(pid, argument[1], subject.one); break;
  case OPENAT2: {
    struct open_how how = { 0 };
    struct iovec here = { &how, sizeof how }, there = { (void *)argument[2], sizeof how };
    process_vm_readv(pid, &here, 1, &there, 1, 0);
    flags = (unsigned long)how.flags;
    read_text(pid, argument[1], subject.one);
  }
  }
  if (kind->shape == OPEN || kind->shape == OPENAT || kind->shape == OPENAT2) {
    bool writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
    subject.reads = !writes;
    subject.ignored = !strcmp(subject.one, "/dev/null");
    snprintf(subject.two, TEXT, "%s%s", writes ? "W" : "R", flags & O_CREAT ? "C" : "");
  }
  return subject;
}

static const struct call_kind *kind_of(long number) {
  for (int i = 0; i < KINDS; i++)
    if (kinds[i].number == number) return &kinds[i];
  return NULL;
}

/* --- the tree ------------------------------------------------------------------------------------------------------------ */

/* In the child: stops until it is traced, then becomes the program, with a filter that stops the calls of interest. */
static void become(char **words) {
  struct sock_filter filter[KINDS + 3];
  int length = 0;
  raise(SIGSTOP);
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
  for (int i = 0; i < KINDS; i++, length++)
    filter[length] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)kinds[i].number, KINDS - i, 0);
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
  struct sock_fprog program = { (unsigned short)length, filter };
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) {
    perror("inject: seccomp (root is needed)");
    _exit(FAIL_FILTER);
  }
  execvp(words[0], words);
  perror(words[0]);
  _exit(FAIL_EXEC);
}

static volatile sig_atomic_t armed = 1;
static void arm(int signal) {
  (void)signal;
  armed = 1;
}

int main(int count, char **words) {
  if (count > 1 && !strcmp(words[1], "-w")) {
    armed = 0;
    words++, count--;
  }
  if (count < 7 || strcmp(words[5], "--")) {
    fprintf(stderr, "usage: inject [-w] count|kill|kill-agent|kill-all|E<number> N changes|reads LOG -- PROGRAM [ARG...]\n");
    return FAIL_USAGE;
  }
  const char *mode = words[1];
  const long wanted = atol(words[2]);
  const bool reads = !strcmp(words[3], "reads"), counting = !strcmp(mode, "count");
  const int error = mode[0] == 'E' ? atoi(mode + 1) : 0;
  char agent[TEXT] = "", *resolved = realpath(words[6], NULL);
  FILE *log = fopen(words[4], "we");
  if (!log || !resolved) {
    perror(log ? words[6] : words[4]);
    return FAIL_USAGE;
  }
  snprintf(agent, sizeof agent, "%s", resolved);

  struct sigaction action = { .sa_handler = arm }; /* without SA_RESTART: it ends a wait */
  sigaction(SIGUSR1, &action, NULL);
  int status;
  pid_t program = fork();
  if (!program) become(words + 6);
  waitpid(program, &status, WUNTRACED);
  const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC |
                       PTRACE_O_EXITKILL; /* the whole tree ends with this program */
  if (ptrace(PTRACE_SEIZE, program, 0, options)) {
    perror("inject: ptrace");
    return FAIL_SEIZE;
  }
  kill(program, SIGCONT);

  long number = 0;
  int program_status = -1;
  bool hit = false, started = false;
  for (;;) {
    pid_t pid = waitpid(-1, &status, __WALL);
    if (pid < 0 && errno == EINTR) continue;
    if (pid < 0) break; /* all have ended */
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
      if (pid == program) program_status = status;
      continue;
    }
    if (!WIFSTOPPED(status)) continue;
    const int event = status >> 16, signal = WSTOPSIG(status);
    if (event == PTRACE_EVENT_SECCOMP) {
      struct call call;
      if (!read_call(pid, &call)) continue; /* the process was killed meanwhile */
      const struct call_kind *kind = kind_of(call.number);
      if (!started) { /* the first one is our own execve */
        started = call.number == SYS_execve;
      } else if (kind && armed) {
        char file[TEXT];
        struct subject subject = subject_of(pid, &call, kind);
        read_link(pid, "exe", -1, file);
        const bool by_agent = !strcmp(file, agent);
        if (!subject.ignored && subject.reads == reads && (by_agent || !reads)) {
          number++;
          if (counting || number == wanted) {
            const char *base = strrchr(file, '/');
            fprintf(log, "%ld %s %s %s %s\n", number, by_agent ? "AGENT" : base ? base + 1 : file, kind->name, subject.one, subject.two);
            fflush(log);
          }
          if (number == wanted && !counting) {
            hit = true;
            if (error) {
              refuse(pid, error);
            } else if (!strcmp(mode, "kill-all")) {
              fprintf(log, "total %ld hit 1\n", number);
              fclose(log);
              return 128 + SIGKILL; /* PTRACE_O_EXITKILL ends all others too */
            } else {
              kill(!strcmp(mode, "kill-agent") ? program : pid, SIGKILL);
            }
          }
        }
      }
      ptrace(PTRACE_CONT, pid, 0, 0); /* fails for a dead process; waitpid reports its end */
    } else if (event == PTRACE_EVENT_STOP) {
      /* a new process, or one that was stopped: that stays so until SIGCONT */
      const bool stopped = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
      ptrace(stopped && started ? PTRACE_LISTEN : PTRACE_CONT, pid, 0, 0);
    } else {
      /* our own events end with SIGTRAP; every other signal is delivered */
      ptrace(PTRACE_CONT, pid, 0, event || signal == SIGTRAP ? 0 : signal);
    }
  }
  fprintf(log, "total %ld hit %d\n", number, hit);
  fclose(log);
  if (program_status < 0) return FAIL_WAIT;
  return WIFEXITED(program_status) ? WEXITSTATUS(program_status) : 128 + WTERMSIG(program_status);
}
