"""terminal.py PVOL DIR: pvol on a terminal. Prompts, echo, corrections, confirmations, Ctrl-C, progress.

Called by terminal.sh, which has set PVOL_HOME and PVOL_RUNTIME. Prints "ok NAME" and "not ok NAME" lines.
"""
import fcntl, os, pty, re, select, signal, struct, subprocess, sys, termios, time

PVOL, DIR = sys.argv[1:]
CHEAP = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
PASS = b"a typed passphrase"
failed = False


class Gone(Exception):
    pass


class Terminal:
    """a program on a terminal of its own"""

    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm"
            os.execv(PVOL, ["pvol", *args])
        self.seen = b""   # everything
        self.read = 0     # how much of it has been expected

    def expect(self, pattern, seconds=60):
        end = time.time() + seconds
        while True:
            m = re.search(pattern, self.seen[self.read:])
            if m:
                self.read += m.end()
                return m
            if time.time() > end:
                raise Gone("not shown in time: %r; shown: %r" % (pattern, self.seen))
            if not select.select([self.fd], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                raise Gone("ended before %r; shown: %r" % (pattern, self.seen))
            self.seen += data

    def echoes(self):
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def name(self):
        """of the terminal's other end, by TIOCGPTN"""
        return "/dev/pts/%d" % struct.unpack("I", fcntl.ioctl(self.fd, 0x80045430, bytes(4)))

    def answer(self, prompt, text):
        """waits for a prompt whose answer must not be echoed"""
        self.expect(prompt)
        end = time.time() + 20
        while self.echoes():
            if time.time() > end:
                raise Gone("echo is on at the prompt %r" % prompt)
            time.sleep(0.01)
        os.write(self.fd, text + b"\n")

    def say(self, text):
        os.write(self.fd, text + b"\n")

    def end(self, seconds=60):
        """exit code, or minus the signal"""
        end = time.time() + seconds
        while time.time() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    data = b""
                self.seen += data
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                # what is still in the terminal
                while select.select([self.fd], [], [], 0)[0]:
                    try:
                        data = os.read(self.fd, 65536)
                    except OSError:
                        break
                    if not data:
                        break
                    self.seen += data
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise Gone("did not end; shown: %r" % self.seen)


def test(function):
    global failed
    name = function.__doc__
    try:
        function()
    except (Gone, AssertionError) as e:
        failed = True
        print("    %s: %s" % (type(e).__name__, e))
        print("not ok " + name, flush=True)
    else:
        print("ok " + name, flush=True)


def plain(*args):
    return subprocess.run([PVOL, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def known(name):
    return ('"name":"%s"' % name).encode() in plain("list", "--json").stdout


def create():
    """create asks twice without echo, and again after a mistake"""
    t = Terminal("create", "tty", "--size", "256M", "--at", DIR + "/tty", *CHEAP)
    t.answer(rb"[Pp]assphrase for tty: ", PASS)
    t.answer(rb"again: ", b"something else")
    t.answer(rb"[Pp]assphrase for tty: ", PASS)
    t.answer(rb"again: ", PASS)
    t.expect(rb"tty: created")
    global recovery
    recovery = t.expect(rb"\|  ((?:[cbdefghijklnrtuv]{8}-){7}[cbdefghijklnrtuv]{8})  \|").group(1)
    assert t.end() == 0, t.seen
    assert PASS not in t.seen, "the passphrase was echoed"
    box = [l for l in t.seen.decode().replace("\r", "").split("\n") if l.startswith(("  +", "  |"))]
    assert len(box) == 5 and len({len(l) for l in box}) == 1, box
    assert os.path.ismount(DIR + "/tty")


def logs():
    """the recovery key and the passphrase are in no file of pvol's"""
    for top in (os.environ["PVOL_HOME"], os.environ["PVOL_RUNTIME"]):
        for d, _, files in os.walk(top):
            for f in files:
                path = os.path.join(d, f)
                if os.path.isfile(path):
                    r = subprocess.run(["grep", "-c", "-a", "-F", "-e", recovery.decode(), "-e", PASS.decode(), path],
                                       stdout=subprocess.PIPE)
                    assert r.stdout.strip() == b"0", path


def retries():
    """open lets a person correct a wrong passphrase"""
    assert plain("close", "tty").returncode == 0
    t = Terminal("open", "tty")
    t.answer(rb"Passphrase for tty: ", b"wrong")
    t.expect(rb"pvol: .*\n")
    t.answer(rb"Passphrase for tty: ", PASS)
    t.expect(rb"tty: open at ")
    assert t.end() == 0
    assert os.path.ismount(DIR + "/tty")


def three():
    """after three wrong passphrases it is exit code 3"""
    assert plain("close", "tty").returncode == 0
    t = Terminal("open", "tty")
    for i in range(3):
        t.answer(rb"Passphrase for tty: ", b"wrong %d" % i)
    assert t.end() == 3, t.seen
    assert not os.path.ismount(DIR + "/tty")


def typed_recovery():
    """a recovery key may be typed at the passphrase prompt, in capitals and without dashes"""
    t = Terminal("open", "tty")
    t.answer(rb"Passphrase for tty: ", recovery.upper().replace(b"-", b" "))
    t.expect(rb"tty: open at ")
    assert t.end() == 0


def interrupt_prompt():
    """Ctrl-C at a prompt restores the terminal and ends pvol"""
    assert plain("close", "tty").returncode == 0
    t = Terminal("open", "tty")
    t.expect(rb"Passphrase for tty: ")
    end = time.time() + 20
    while t.echoes():
        assert time.time() < end, "echo stays on"
        time.sleep(0.01)
    # the terminal outlives pvol: this end keeps it, and a second descriptor its settings
    keep = os.open(t.name(), os.O_RDWR | os.O_NOCTTY)
    os.write(t.fd, b"\x03")
    rc = None
    for _ in range(200):
        pid, status = os.waitpid(t.pid, os.WNOHANG)
        if pid:
            rc = os.waitstatus_to_exitcode(status)
            break
        time.sleep(0.05)
    echo = bool(termios.tcgetattr(keep)[3] & termios.ECHO)
    os.close(keep)
    os.close(t.fd)
    assert rc is not None and rc != 0, rc
    assert echo, "echo is still off"


def confirmations():
    """rollback and erase ask first, and do nothing without a yes"""
    t = Terminal("open", "tty")
    t.answer(rb"Passphrase for tty: ", PASS)
    assert t.end() == 0
    assert plain("snapshot", "tty@s").returncode == 0
    with open(DIR + "/tty/later", "w") as f:
        f.write("x")
    t = Terminal("rollback", "tty@s")
    t.expect(rb"\[y/N\] ")
    t.say(b"n")
    t.expect(rb"Nothing was changed")
    assert t.end() == 1
    assert os.path.exists(DIR + "/tty/later")
    t = Terminal("rollback", "tty@s")
    t.expect(rb"\[y/N\] ")
    t.say(b"yes")
    assert t.end() == 0, t.seen
    assert not os.path.exists(DIR + "/tty/later")
    assert plain("close", "tty").returncode == 0
    t = Terminal("erase", "tty")
    t.expect(rb"Type its name")
    t.say(b"yes")
    t.expect(rb"Nothing was changed")
    assert t.end() == 1
    t = Terminal("open", "tty")
    t.answer(rb"Passphrase for tty: ", PASS)
    assert t.end() == 0, "it was erased all the same"


def progress():
    """what takes more than two seconds shows progress, and clears it"""
    assert plain("close", "tty").returncode == 0
    t = Terminal("create", "slow", "--size", "256M", "--at", DIR + "/slow", "--pbkdf", "pbkdf2", "--iter-time", "4000",
                 "--no-recovery-key")
    t.answer(rb"[Pp]assphrase for slow: ", PASS)
    t.answer(rb"again: ", PASS)
    t.expect(rb"\r\x1b\[K[a-z][^\r]* s", 120)
    t.expect(rb"\r\x1b\[K.*slow: created", 120)
    assert t.end() == 0
    assert plain("close", "slow").returncode == 0


def interrupt_create():
    """Ctrl-C during create says that everything was removed, and it is"""
    t = Terminal("create", "gone", "--size", "256M", "--at", DIR + "/gone", "--pbkdf", "pbkdf2", "--iter-time", "5000",
                 "--no-recovery-key")
    t.answer(rb"[Pp]assphrase for gone: ", PASS)
    t.answer(rb"again: ", PASS)
    time.sleep(1.5)
    os.write(t.fd, b"\x03")
    t.expect(rb"removing what was made so far")
    t.expect(rb"everything that was made has been removed", 90)
    assert t.end() not in (0, 2)
    assert not known("gone")
    assert not os.path.exists(DIR + "/gone")
    left = [f for d, _, fs in os.walk(os.environ["PVOL_HOME"]) for f in fs if "gone" in f]
    assert not left, left


for function in (create, logs, retries, three, typed_recovery, interrupt_prompt, confirmations, progress,
                 interrupt_create):
    test(function)
sys.exit(failed)
