"""What a process may do, tried from inside it. Runs alone, as the ExecStart of a unit; needs only Python.

    sandbox_probes.py NAME…

Each probe runs in a child of its own. The answers, on stdout, are a JSON object of name to "allowed", "denied: why",
or what it found otherwise. A probe returns None if it was allowed to, and raises OSError if it was not.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
from multiprocessing import shared_memory
from pathlib import Path
from typing import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
_STATE = Path(os.environ.get("STATE_DIRECTORY", "/var/lib/defectd"))
_SCRATCH = Path("/run/probes")  # a directory of the test's, where everybody may write


def _called(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _denied(why: str) -> OSError:
    return PermissionError(errno.EPERM, why)


def write_usr() -> None:
    Path("/usr/written").write_text("x")
    Path("/usr/written").unlink()


def write_etc() -> None:
    Path("/etc/defectd/written").write_text("x")
    Path("/etc/defectd/written").unlink()


def read_home() -> None:
    if not os.listdir("/home"):
        raise _denied("empty")


def see_tmp() -> None:
    if not Path("/tmp/planted").exists():
        raise _denied("another /tmp")


def see_argus() -> None:
    os.stat("/tmp/argus_socket")


def share_mounts() -> None:
    if os.readlink("/proc/self/ns/mnt") == Path("/run/probes/host-mnt").read_text().strip():
        return
    raise _denied("mounts of its own")


def see_processes() -> None:
    os.stat("/proc/1")


def set_hostname() -> None:
    socket.sethostname(socket.gethostname())


def write_sysctl() -> None:
    """A file that the test has put there: a container's own are read-only."""
    os.close(os.open("/proc/sys/net/planted", os.O_WRONLY))


def see_modules() -> None:
    if not os.listdir("/usr/lib/modules"):
        raise _denied("empty")


def see_kernel_log() -> None:
    if not os.stat("/proc/kmsg").st_mode & 0o777:
        raise _denied("masked")


def write_cgroups() -> None:
    path = next(Path("/sys/fs/cgroup").glob("pids")) / "probe"
    path.mkdir()
    path.rmdir()


def become_root() -> None:
    shown = subprocess.run(["/usr/local/bin/id-of-root", "-u"], capture_output=True, text=True, check=True).stdout
    if shown.strip() != "0":
        raise _denied(f"euid {shown.strip()}")


def use_capability() -> None:
    """Root without capabilities may not give a file away."""
    path = _SCRATCH / f"mine-{os.getpid()}"
    path.write_text("")
    os.chown(path, 12345, 12345)


def open_netlink() -> None:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()


def open_packet() -> None:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()


def new_namespace() -> None:
    _called(_LIBC.unshare(_CLONE_NEWUSER))


def ask_realtime() -> None:
    """Of a process that does not exist: the kernel says so, a filter says EPERM."""
    try:
        os.sched_setscheduler(4_194_303, os.SCHED_FIFO, os.sched_param(1))
    except ProcessLookupError:
        return


def set_suid() -> None:
    path = _SCRATCH / f"suid-{os.getpid()}"
    path.write_text("")
    path.chmod(0o4755)


def change_personality() -> None:
    _called(_LIBC.personality(ctypes.c_ulong(0x0040000)))


def call_as_32_bit() -> None:
    """getpid of the i386 table: mov eax, 20; int 0x80; ret."""
    if platform.machine() != "x86_64":
        raise NotImplementedError("x86-64 alone")
    _run_machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")


def mount_something() -> None:
    path = _SCRATCH / f"mount-{os.getpid()}"
    path.mkdir()
    _called(_LIBC.mount(b"tmpfs", str(path).encode(), b"tmpfs", 0, b""))
    _LIBC.umount(str(path).encode())


def give_away() -> None:
    """chown of an own file to oneself: no capability is needed, and @privileged has it."""
    path = _SCRATCH / f"own-{os.getpid()}"
    path.write_text("")
    os.chown(path, os.getuid(), os.getgid())


def open_other_device() -> None:
    """A node that a container has, too."""
    os.close(os.open("/dev/net/tun", os.O_RDWR))


def dump_core() -> None:
    import resource

    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        raise _denied("no core")


def create_open_file() -> None:
    path = _SCRATCH / f"mode-{os.getpid()}"
    path.write_text("")
    if not path.stat().st_mode & 0o077:
        raise _denied("nobody else may read it")


def start_many() -> None:
    """More tasks than TasksMax."""
    threading.stack_size(64 << 10)
    end = threading.Event()
    try:
        for _ in range(1100):
            threading.Thread(target=end.wait, daemon=True).start()
    except RuntimeError as error:
        raise _denied(str(error)) from error
    finally:
        end.set()


def take_memory() -> None:
    """512 MB, touched."""
    with mmap.mmap(-1, 512 << 20) as memory:
        for offset in range(0, len(memory), 4096):
            memory[offset] = 1


def reach_other_network() -> None:
    """A datagram to an address that IPAddressAllow does not name. Nobody listens: sending is what counts."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("203.0.113.9", 9))


def read_secret() -> None:
    Path("/etc/defectd/secrets.env").read_text()


def read_secret_credential() -> None:
    Path("/etc/defectd/credentials/mqtt-password").read_text()


# What the daemon needs, and must be allowed to.
def reach_localhost() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", 9))


def reach_plant() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("10.77.0.9", 9))


def open_sockets() -> None:
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        socket.socket(family, socket.SOCK_STREAM).close()


def write_state() -> None:
    path = _STATE / f"written-{os.getpid()}"
    path.write_text("x")
    os.fsync(os.open(path, os.O_RDONLY))
    path.unlink()


def write_runtime() -> None:
    Path(os.environ["RUNTIME_DIRECTORY"], "written").write_text("x")


def share_memory() -> None:
    block = shared_memory.SharedMemory(create=True, size=4096)
    block.close()
    block.unlink()


def read_credential() -> None:
    path = Path(os.environ["DEFECTD_MQTT__PASSWORD_FILE"])
    if path.read_text() != "secret":
        raise _denied("something else")


def step_back() -> None:
    """What a build or a trial of a model does first: nice 19, the session's group, idle disk, first to be killed."""
    os.setsid()
    os.nice(19)
    Path("/proc/self/oom_score_adj").write_text("1000")
    if Path("/proc/self/autogroup").exists():
        Path("/proc/self/autogroup").write_text("19")
    number = {"x86_64": 251, "aarch64": 30}[platform.machine()]
    _called(_LIBC.syscall(number, 1, 0, 3 << 13))
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    _called(_LIBC.prctl(1, signal.SIGKILL, 0, 0, 0))


def run_machine_code() -> None:
    """Memory that is written and then run: PyTorch's kernels are made so."""
    _run_machine_code({"x86_64": b"\xc3", "aarch64": b"\xc0\x03\x5f\xd6"}[platform.machine()])


def compile_and_load() -> None:
    """As TorchInductor does: the cache below the state directory, the compiler's own files in $TMPDIR or /tmp."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise NotImplementedError("no g++ here")
    folder = _STATE / f"cache-{os.getpid()}"
    folder.mkdir()
    (folder / "seven.cpp").write_text(
        '#include <vector>\nextern "C" int seven() { return std::vector<int>(7).size(); }'
    )
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", folder / "seven.so", folder / "seven.cpp"]
    built = subprocess.run(command, check=False, capture_output=True, text=True, preexec_fn=lambda: os.nice(19))
    if built.returncode:
        raise _denied(built.stderr[-300:])
    if ctypes.CDLL(str(folder / "seven.so")).seven() != 7:
        raise _denied("it does not count")
    shutil.rmtree(folder)


def read_kernel() -> None:
    """What telemetry and doctor read."""
    for name in ("meminfo", "stat", "loadavg", "cpuinfo", "locks", "self/status", "devices"):
        Path("/proc", name).read_text(errors="replace")
    os.listdir("/sys/class")
    os.listdir("/sys/devices")


def leave_shared_memory() -> None:
    """For RemoveIPC: what is left when the service has ended."""
    Path("/dev/shm/left-behind").write_text("x")


def _run_machine_code(code: bytes) -> None:
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(code)
        holder = ctypes.c_char.from_buffer(memory)
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(holder))()
        del holder


def tried(probe: Callable[[], None]) -> str:
    """Run *probe* in a child; a child that is killed was denied."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            probe()
            said = "allowed"
        except NotImplementedError as error:
            said = f"not here: {error}"
        except OSError as error:
            said = f"denied: {errno.errorcode.get(error.errno or 0, '')} {error.strerror or error}"
        except BaseException as error:  # noqa: BLE001 - the answer says so
            said = f"broken: {type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and not said:
        return f"denied: {signal.Signals(os.WTERMSIG(status)).name}"
    return said.decode()


def main() -> None:
    found = {name: tried(globals()[name]) for name in sys.argv[1:]}
    print(json.dumps(found), flush=True)  # systemd has opened stdout: the sandbox need not let the probes write


if __name__ == "__main__":
    main()
