"""The script ./dev, with stand-ins for what it calls: packages, CMake, the server and the scenario."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEADLINE_SECONDS = 60  # for what should take no time; only a broken script comes near it

# Each notes how it was called in $NOTES. `cmake --build` makes the two programs of the demo.
STAND_INS = {
    "dpkg-query": """
for package; do
  case "$package" in
    -*|*'$'*) ;;
    *) case " $ABSENT " in *" $package "*) ;; *) echo "installed $package 1.0" ;; esac ;;
  esac
done""",
    "apt-get": """
echo "apt-get $*" >>"$NOTES"
case "$* " in *" -s "*) echo "$SIMULATED" ;; esac""",
    "id": "echo ${USER_ID:-0}",
    "sudo": 'echo "sudo $*" >>"$NOTES"; exec "$@"',
    "ctest": 'while [ "$1" != --output-log ]; do shift; done; echo "$TEST_LOG" | tee "$2"',
    "cmake": """
echo "cmake $*" >>"$NOTES"
echo "what the build says"
mkdir -p build/release build/demo/bin
cp "$PROGRAMS"/* build/demo/bin/""",
}
PROGRAMS = {
    "normserve-server": """
echo "a line of the server's log"
[ -z "${SERVER_DIES:-}" ] || exit 3
while [ "$1" != --port-file ]; do shift; done
trap 'echo "server stopped" >>"$NOTES"; exit 0' TERM
echo $$ >"$NOTES.pid"
echo 127.0.0.1:4711 >"$2"
while :; do sleep 0.05; done""",
    "normserve-forum-scenario": """
echo "scenario $*" >>"$NOTES"
[ -z "${SCENARIO_WAITS:-}" ] || { echo $$ >"$NOTES.scenario"; exec sleep 1000; }
echo "the puzzle"
echo '{"statistics_equal": true}'
exit "${SCENARIO_STATUS:-0}" """,
}


class DevTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkout = self.path("checkout")
        os.makedirs(os.path.join(self.checkout, "tests"))
        for name in ("dev", "CMakePresets.json"):
            shutil.copy(os.path.join(ROOT, name), self.checkout)
        for folder, programs in (("bin", STAND_INS), ("programs", PROGRAMS)):
            os.makedirs(self.path(folder))
            for name, text in programs.items():
                with open(self.path(folder, name), "w", encoding="utf-8") as file:
                    file.write("#!/bin/sh\n" + text + "\n")
                os.chmod(self.path(folder, name), 0o755)
        self.environment = {
            "PATH": self.path("bin") + ":/usr/bin:/bin", "NOTES": self.path("notes"), "ABSENT": "", "SIMULATED": "",
            "PROGRAMS": self.path("programs"),
        }  # fmt: skip

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def notes(self):
        try:
            with open(self.path("notes"), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def dev(self, *arguments, **environment):
        return subprocess.run(
            ["sh", os.path.join(self.checkout, "dev"), *arguments], env={**self.environment, **environment},
            capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)  # fmt: skip

    def wait_for_file(self, path):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (os.path.exists(path) and os.path.getsize(path)):
            self.assertLess(time.monotonic(), deadline, f"{path} did not appear")
            time.sleep(0.02)

    # ---- arguments

    def test_unknown_arguments_exit_2_and_say_what_is_known(self):
        for arguments, expected in (
            (["frobnicate"], "frobnicate"), (["demo", "--fast"], "--fast"), (["demo", "--seed"], "--seed"),
            (["demo", "--seed", "x"], "whole number"), (["demo", "fix", "x"], "demo takes fix"), (["test", "most"], "most"), (["build", "fast"], "demo release"),
            (["build", "demo", "x"], "one preset"), (["lint", "x"], "no arguments"), (["bench"], "name"),
            (["bench", "nothing"], "nothing"), (["image", "a", "b"], "one tag"), (["packages", "x"], "no package set"),
        ):  # fmt: skip
            with self.subTest(arguments=arguments):
                result = self.dev(*arguments)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertIn(expected, result.stderr)
                self.assertEqual(result.stdout, "")
        self.assertEqual(self.notes(), "")

    def test_help_names_every_command(self):
        text = self.dev("help").stdout
        for command in ("demo", "test", "serve", "build", "lint", "bench", "image", "help", "--backports"):
            self.assertRegex(text, rf"(?m)^  {command}\b")

    # ---- setup

    def test_setup_with_nothing_missing_calls_neither_apt_nor_sudo(self):
        self.assertEqual(self.dev("build", "demo", USER_ID="1000").returncode, 0)
        self.assertNotIn("apt-get", self.notes())
        self.assertNotIn("sudo", self.notes())

    def test_setup_names_what_is_missing_and_installs_only_that(self):
        result = self.dev("build", "demo", ABSENT="ninja-build glslc libgtest-dev")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("dev:   ninja-build glslc\n", result.stderr)
        self.assertRegex(self.notes(), r"(?m)^apt-get install -y .*--no-install-recommends .* ninja-build glslc$")

    def test_setup_goes_through_sudo_when_not_root(self):
        self.dev("build", "demo", ABSENT="glslc", USER_ID="1000")
        self.assertRegex(self.notes(), r"(?m)^sudo env DEBIAN_FRONTEND=noninteractive apt-get install .* glslc$")

    def test_setup_that_nobody_watches_does_not_ask_for_a_password(self):
        self.dev("build", "demo", ABSENT="glslc", USER_ID="1000", CI="true")
        self.assertRegex(self.notes(), r"(?m)^sudo -n env .* glslc$")

    def test_setup_refuses_to_upgrade_an_installed_package(self):
        result = self.dev("build", "demo", ABSENT="glslc", SIMULATED="Inst libc6 [2.36-9] (2.36-10 Debian)")
        self.assertEqual(result.returncode, 1)
        self.assertIn("libc6", result.stderr)
        self.assertNotIn("install -y", self.notes())

    def test_demo_asks_for_no_test_package(self):
        result = self.dev("demo", ABSENT=self.dev("packages", "test", "lint", "bench").stdout)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("apt-get", self.notes())

    def test_whatever_configures_the_tests_installs_the_drivers_they_look_for(self):
        for arguments in (["test"], ["lint"], ["build"], ["build", "asan"], ["build", "clang"]):
            with self.subTest(arguments=arguments):
                self.assertIn("dev:   mesa-vulkan-drivers\n", self.dev(*arguments, ABSENT="mesa-vulkan-drivers").stderr)

    # ---- demo

    def test_demo_ends_with_the_scenario_s_json_and_stops_the_server(self):
        result = self.dev("demo", "--json", "--seed", "7", ABSENT="glslc")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(json.loads(result.stdout.splitlines()[-1])["statistics_equal"])
        self.assertEqual(result.stdout.splitlines()[0], "the puzzle")  # what setup and build say went elsewhere
        self.assertIn("scenario --server 127.0.0.1:4711 --json --seed 7\n", self.notes())
        self.assertIn("server stopped", self.notes())

    def test_failed_scenario_fails_the_demo_shows_the_log_and_stops_the_server(self):
        result = self.dev("demo", SCENARIO_STATUS="4")
        self.assertEqual(result.returncode, 1)
        self.assertIn("a line of the server's log", result.stderr)
        self.assertIn("server stopped", self.notes())

    def test_server_that_dies_at_start_fails_the_demo_with_its_log(self):
        result = self.dev("demo", SERVER_DIES="1")
        self.assertEqual(result.returncode, 1)
        self.assertIn("a line of the server's log", result.stderr)

    def test_interrupted_demo_stops_the_server(self):
        demo = subprocess.Popen(
            ["sh", os.path.join(self.checkout, "dev"), "demo"], env={**self.environment, "SCENARIO_WAITS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        self.wait_for_file(self.path("notes.scenario"))
        os.killpg(demo.pid, signal.SIGINT)  # as the terminal does for Ctrl-C
        self.assertEqual(demo.wait(DEADLINE_SECONDS), 130)
        with open(self.path("notes.pid"), encoding="utf-8") as file:
            server = int(file.read())
        self.assertIn("server stopped", self.notes())
        self.assertRaises(ProcessLookupError, os.kill, server, 0)

    def test_demo_fix_hands_the_built_programs_to_the_story_and_becomes_it(self):
        story = os.path.join(self.checkout, "client", "examples", "fix")
        os.makedirs(story)
        with open(os.path.join(story, "fix.py"), "w", encoding="utf-8") as file:
            file.write("import os, sys\nprint('story', *sys.argv[1:], os.environ['PYTHONPATH'])\nsys.exit(5)\n")
        result = self.dev("demo", "fix", "--json", "--seed", "3", ABSENT="python3-torch")
        self.assertEqual(result.returncode, 5, result.stderr)
        self.assertEqual(result.stdout, "story --programs build/demo/bin --json --seed 3 build/demo/python\n")
        self.assertIn("dev:   python3-torch\n", result.stderr)
        self.assertRegex(self.notes(), r"(?m)^cmake --build build/demo .*normctl normserve_python")

    # ---- test

    def test_a_skipped_or_disabled_test_fails_the_run(self):
        passed = "100% tests passed, 0 tests failed out of 2"
        self.assertEqual(self.dev("test", TEST_LOG=passed).returncode, 0)
        for line in ("1/2 Test #1: a ......***Skipped   0.01 sec", "\t  1 - a (Disabled)", "\t  1 - a (Not Run)"):
            with self.subTest(line=line):
                self.assertEqual(self.dev("test", TEST_LOG=f"{line}\n{passed}").returncode, 1)


if __name__ == "__main__":
    unittest.main()
