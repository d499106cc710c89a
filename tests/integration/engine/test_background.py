"""Real processes that behave in every way in which a compiler or a driver can misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from defectd.engine.background import Patience, ask, available_memory_mb


def child(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def gone(pid: int, within_s: float = 5.0) -> bool:
    due = time.monotonic() + within_s
    while time.monotonic() < due:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_it_is_asked_once_and_answers_in_lines():
    request = {"long": "x" * 500_000}  # more than a pipe holds
    heard = []
    code = """
        import json, sys
        length = len(json.load(sys.stdin)["long"])
        print(json.dumps({"stage": "one", "share": 0.5}), flush=True)
        print(json.dumps({"result": length}), flush=True)
    """
    answer = ask(child(code), request, Patience(30), heard.append)
    assert (answer.last, answer.problem) == ({"result": 500_000}, None)
    assert heard == [{"stage": "one", "share": 0.5}]


def test_it_lets_everybody_else_go_first_and_is_the_first_to_be_killed():
    code = """
        import json, os
        print(json.dumps({"nice": os.nice(0), "oom": open("/proc/self/oom_score_adj").read().strip(),
                          "session": os.getsid(0) == os.getpid(), "pid": os.getpid()}), flush=True)
        import time; time.sleep(0.5)
    """
    seen = {}

    def look(_line):
        raise AssertionError("the last line is not progress")

    thread_result = {}
    thread = threading.Thread(target=lambda: thread_result.update(ask(child(code), {}, Patience(30), look).last))
    thread.start()
    while thread.is_alive() and not seen:
        for process in psutil.Process().children(recursive=True):
            try:
                if process.nice() == 19 and process.ionice().ioclass == psutil.IOPRIO_CLASS_IDLE:
                    seen["idle"] = True
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.01)
    thread.join()
    assert thread_result == {"nice": 19, "oom": "1000", "session": True, "pid": thread_result["pid"]}
    assert seen == {"idle": True}


def test_one_that_stops_is_killed_when_its_time_is_over():
    begun = time.monotonic()
    answer = ask(child("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"), {}, Patience(1.0))
    assert (answer.problem, answer.passing) == ("took longer than 1 s", False)
    assert time.monotonic() - begun < 5


def test_its_compilers_are_killed_with_it(tmp_path):
    code = f"""
        import subprocess, sys, time
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(other.pid))
        time.sleep(600)
    """
    assert ask(child(code), {}, Patience(2.0)).problem == "took longer than 2 s"
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_compiler_that_it_leaves_behind_holds_nobody_up(tmp_path):
    code = f"""
        import json, subprocess, sys
        other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(other.pid))
        print(json.dumps({{"result": 1}}), flush=True)
    """
    assert ask(child(code), {}, Patience(30)).last == {"result": 1}
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
    ("code", "problem", "passing"),
    [
        ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV", False),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL", True),
        ("raise SystemExit('no such symbol: cuInit')", "ended with exit status 1: no such symbol: cuInit", False),
        ("pass", "ended without an answer", False),
        ("print('hello')", "does not speak JSON: b'hello'", False),
        ("print('[1]')", "does not speak JSON: b'[1]'", False),
        ("print('[' * 100000)", "does not speak JSON: b'[[", False),
        ("print('{' + ' ' * 3_000_000 + '}')", "says more than it should", False),
        ("while True: print('{}')", "says more than it should", False),
    ],
)
def test_whatever_it_does_is_an_answer(code, problem, passing):
    answer = ask(child(code), {}, Patience(30))
    assert (answer.problem or "").startswith(problem)
    assert answer.passing is passing


def test_its_own_error_counts_more_than_its_exit_status():
    code = """
        import json
        print(json.dumps({"error": {"kind": "unusable", "detail": "no such layer"}}), flush=True)
        raise SystemExit(3)
    """
    answer = ask(child(code), {}, Patience(30))
    assert (answer.last["error"]["detail"], answer.problem) == ("no such layer", None)


def test_much_noise_on_stderr_is_no_obstacle():
    code = """
        import json, sys
        sys.stderr.write("warning\\n" * 200_000)
        print(json.dumps({"result": 1}))
    """
    assert ask(child(code), {}, Patience(30)).last == {"result": 1}


def test_it_does_not_start_without_the_memory_it_needs():
    available = available_memory_mb()
    assert available is not None and available > 0
    answer = ask(child("print('{}')"), {}, Patience(30, needs_mb=available * 10))
    assert (answer.problem or "").startswith(f"needs {available * 10} MB of memory, ")
    assert answer.passing and not answer.last


def test_it_is_killed_when_it_leaves_the_others_too_little_memory():
    available = available_memory_mb() or 0
    answer = ask(child("import time; time.sleep(600)"), {}, Patience(30, floor_mb=available * 10))
    assert "MB of memory to the others" in (answer.problem or "") and answer.passing


def test_a_machine_that_does_not_tell_its_memory_is_trusted(tmp_path):
    assert available_memory_mb(tmp_path / "nowhere") is None
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\nMemAvailable:    2097152 kB\n")
    assert available_memory_mb(tmp_path / "meminfo") == 2048


def test_it_stops_when_it_is_told_to():
    begun = time.monotonic()
    answer = ask(child("import time; time.sleep(600)"), {}, Patience(60), stop=lambda: time.monotonic() > begun + 1)
    assert (answer.problem, answer.passing) == ("was told to stop", True)
    assert time.monotonic() - begun < 5


def test_a_command_that_cannot_be_executed_is_an_answer():
    answer = ask(["/nowhere/python"], {}, Patience(30))
    assert (answer.problem or "").startswith("ended with exit status 1: FileNotFoundError")


def test_it_ends_with_the_daemon(tmp_path):
    program = f"""
        import sys
        from defectd.engine.background import Patience, ask
        code = "import os, time; open({str(tmp_path / "pid")!r}, 'w').write(str(os.getpid())); time.sleep(600)"
        ask([sys.executable, "-c", code], {{}}, Patience(600))
    """
    daemon = subprocess.Popen(child(program), stderr=subprocess.PIPE)
    due = time.monotonic() + 20
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < due:
        time.sleep(0.05)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    daemon.stderr.close()
    assert gone(int((tmp_path / "pid").read_text()))


def test_no_descriptor_is_left_open():
    before = os.listdir("/proc/self/fd")
    for code in ("print('{}')", "import os; os.kill(os.getpid(), 11)"):
        ask(child(code), json.loads("{}"), Patience(30))
    assert os.listdir("/proc/self/fd") == before
