#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Does a test notice when kvd is wrong? Each mutant of mutants.py is one known mistake: the file
is compiled with it, put in front of the library it came from, the tests named are linked anew with
it and have to fail, and not without the mistake. A mutant that every test survives, or that no
longer applies, fails this test.

Nothing in the source or the build folder is changed. KVD_MUTANTS=all takes all of them and not
only those that are quick; KVD_MUTANTS=NAME,NAME some; KVD_MUTANTS_PART=I/N every Nth."""

import concurrent.futures
import contextlib
import ctypes
import functools
import json
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

import mutants

SOURCE = os.environ['KVD_SOURCE']
BUILD = os.environ['KVD_BUILD']
WANTED = os.environ.get('KVD_MUTANTS', 'quick')
MEMORY_DIR = os.environ.get('KVD_TEST_MEMORY_DIR')  # where tests have what they sync often
CONTROLLED = set()  # test programs
CONTROLLED_LOCK = threading.Lock()
# A mutated test that is not over by then may take some times what it takes without the mistake.
LEAST_S = 60
TIMES = 4
TIME_LIMIT_S = 900  # without the mistake
RUNNING = set()  # process groups
RUNNING_LOCK = threading.Lock()
STOPPED = threading.Event()
PR_SET_PDEATHSIG = 1
FIRST_FAILURE = {'KVD_SIM_FAILURES': '1', 'KVD_SIM_SHRINK': '0'}  # is enough for the simulation
LIBC = ctypes.CDLL(None, use_errno=True)


class Broken(Exception):
    """The mutant says nothing: the source has moved on, or there was not time enough."""


def ninja_command(target):
    """The command line by which ninja makes `target`, a path in the build folder."""
    run = subprocess.run(['ninja', '-C', BUILD, '-t', 'commands', '-s', target],
                         capture_output=True, text=True, check=False)
    lines = [line for line in run.stdout.splitlines() if line.strip()]
    if run.returncode != 0 or not lines:
        raise Broken(f'{target}: no such target')
    return shlex.split(lines[-1])


def ninja_objects():
    """All objects of the build by their source, relative to the tree."""
    run = subprocess.run(['ninja', '-C', BUILD, '-t', 'compdb'], capture_output=True, text=True,
                         check=True)
    objects = {}
    for entry in json.loads(run.stdout):
        output = entry.get('output', '')
        if output.endswith('.o'):
            path = os.path.realpath(os.path.join(entry['directory'], entry['file']))
            objects.setdefault(os.path.relpath(path, os.path.realpath(SOURCE)), []).append(output)
    return objects


def mutate(mutant, folder):
    """Writes the file with the mistake in it under `folder`."""
    try:
        text = mutant.mistaken(SOURCE)
    except mutants.Lost as error:
        raise Broken(str(error)) from None
    path = os.path.join(folder, mutant.path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def compile_object(source, original, folder):
    """Compiles `source` as `original` was, with the files under `folder` before the tree's."""
    command = ninja_command(original)
    if 'ccache' in command[0]:
        command = command[1:]
    output = os.path.join(folder, source.replace('/', '_') + '.o')
    mutated = os.path.join(folder, source)
    path = mutated if os.path.exists(mutated) else os.path.join(SOURCE, source)
    keep = []
    skip = False
    for word in command[1:-1]: # the last word is the source
        if skip:
            skip = False
        elif word in ('-MQ', '-MF', '-o'):
            skip = True
        elif word not in ('-MD', '-c', '-Werror'):
            keep.append(word)
    command = [command[0], '-I' + folder, *keep, '-w', '-c', path, '-o', output]
    run = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Broken(f'{source} does not compile:\n{run.stderr}')
    return output


def link(program, compiled, folder):
    """Links `program` with these objects (the new by the old one) instead of those it would have,
    or in front of the libraries that have them."""
    command = [compiled.get(word, word) for word in ninja_command(program)]
    objects = [new for new in compiled.values() if new not in command]
    output = os.path.join(folder, 'bin', program)
    os.makedirs(os.path.dirname(output), exist_ok=True)
    at = command.index('-o')
    command[at + 1] = output
    command[at + 2:at + 2] = objects
    run = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise Broken(f'{program} does not link:\n{run.stderr[-2000:]}')
    return output


def die_with_thread():
    """In a test: it ends with the thread that began it, however that ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def running(command, env):
    """A test, of which nothing is left at the end, or once everything is stopped."""
    with RUNNING_LOCK:
        if STOPPED.is_set():
            raise Broken('stopped')
        run = subprocess.Popen(command, cwd=BUILD, env=env, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, start_new_session=True,
                               preexec_fn=die_with_thread)
        RUNNING.add(run.pid)
    try:
        with run:
            try:
                yield run
            finally:
                end_group(run.pid)
    finally:
        with RUNNING_LOCK:
            RUNNING.discard(run.pid)
    if STOPPED.is_set():
        raise Broken('stopped')


def end_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass # all of them are gone


def stop(*_):
    """Tests that loop for ever end with their checker."""
    STOPPED.set()
    raise SystemExit(1)


def end_all():
    STOPPED.set()
    with RUNNING_LOCK:
        for pid in RUNNING:
            end_group(pid)


class Patience:
    """How long is waited for a test: `least_s`, and then what `measure` says is enough."""

    def __init__(self, least_s, measure=None):
        self.began = time.monotonic()
        self.seconds = least_s
        self.measure = measure

    def left(self):
        left = self.began + self.seconds - time.monotonic()
        if left <= 0 and self.measure is not None:
            self.seconds = max(self.seconds, self.measure())
            self.measure = None
            left = self.began + self.seconds - time.monotonic()
        return max(0, left)


def first_failure(run, patience, last):
    """The first result of a running test that is not ok, or None at its end, or when it has come
    to the result `last`."""
    passed = b'ok %d ' % last if last else b'ok, all of them'
    selector = selectors.DefaultSelector()
    selector.register(run.stdout, selectors.EVENT_READ)
    text = b''
    while True:
        left = patience.left()  # 0 is over, though it may write for ever
        if left == 0:
            raise subprocess.TimeoutExpired(run.args, patience.seconds)
        if not selector.select(left):
            continue
        more = os.read(run.stdout.fileno(), 65536)
        text = text[text.rfind(b'\n') + 1:] + more
        for line in text.splitlines(keepends=True):
            if line.startswith(b'not ok') and (line.endswith(b'\n') or not more):
                return line.decode(errors='replace').strip()
            if line.startswith(passed):
                return None
        if not more:
            run.wait(patience.left())
            return None


def notices(program, arguments, environment, folder, memory, patience, last=None):
    """How the test failed, as it should; None if it passed, up to the result `last`. One failure is
    enough: what the test would do after it is not waited for, so that it leaves its folders in
    ours."""
    temporary = os.path.join(folder, 'tmp')
    os.makedirs(temporary, exist_ok=True)
    env = dict(os.environ, TMPDIR=temporary)
    env.pop('KVD_TEST_SEED', None)  # with another seed it may take a test longer to notice
    if memory is not None:
        env['KVD_TEST_MEMORY_DIR'] = memory
    env.update(FIRST_FAILURE)
    env.update(environment)
    command = [program, *arguments]
    if arguments and arguments[0].endswith('.py'):
        env['KVD_PROGRAM'] = program
        command = [sys.executable, os.path.join(SOURCE, arguments[0]), *arguments[1:]]
    with running(command, env) as run:
        try:
            bad = first_failure(run, patience, last)
            ended = run.poll()
        except subprocess.TimeoutExpired:
            raise Broken(f'{os.path.basename(program)} ran out of time: '
                         f'{patience.seconds:.0f} s') from None
    if bad is None and ended:
        return f'exit status {ended}'
    return bad


@contextlib.contextmanager
def folders():
    """One for what is compiled, and one in memory, if tests have such."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        memory = None
        if MEMORY_DIR is not None:
            memory = stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY_DIR))
        yield folder, memory


def compile_all(mutant, objects, folder):
    compiled = {}
    for source in mutant.sources or [mutant.path]:
        if source not in objects:
            raise Broken(f'{source} is not compiled')
        original = objects[source][0]
        compiled[original] = compile_object(source, original, folder)
    return compiled


def control(mutant, test, objects, why):
    """The same without the mistake has to pass where the mutant failed, or it would be the way in
    which it was made that is noticed. Once for each test: the first that somebody asks for."""
    program, *arguments = test.split()
    with CONTROLLED_LOCK:
        if program in CONTROLLED:
            return
        CONTROLLED.add(program)
    number = re.match(r'not ok (\d+)', why)
    with folders() as (folder, memory):
        built = link(program, compile_all(mutant, objects, folder), folder)
        bad = notices(built, arguments, mutant.environment, folder, memory,
                      Patience(TIME_LIMIT_S), int(number.group(1)) if number else None)
    if bad is not None:
        raise Broken(f'{program} fails without the mistake, too: {bad}')


def enough_s(mutant, test, objects):
    """For the test with the mistake, by how long it takes without."""
    program, *arguments = test.split()
    with folders() as (folder, memory):
        built = link(program, compile_all(mutant, objects, folder), folder)
        began = time.monotonic()
        bad = notices(built, arguments, mutant.environment, folder, memory, Patience(TIME_LIMIT_S))
    if bad is not None:
        raise Broken(f'{program} fails without the mistake, too: {bad}')
    return TIMES * (time.monotonic() - began)


def check_test(mutant, test, objects, compiled, folder, memory):
    """How this test noticed the mutant, or None."""
    program, *arguments = test.split()
    built = link(program, compiled, folder)
    patience = Patience(LEAST_S, functools.partial(enough_s, mutant, test, objects))
    why = notices(built, arguments, mutant.environment, folder, memory, patience)
    if why is None:
        return None
    control(mutant, test, objects, why)
    return f'{test}: {why}'


def check(mutant, objects):
    """Says which tests noticed the mutant, or None."""
    with folders() as (folder, memory):
        mutate(mutant, folder)
        compiled = compile_all(mutant, objects, folder)
        seen = None
        for test in mutant.tests:
            seen = seen or check_test(mutant, test, objects, compiled, folder, memory)
        for test in mutant.wholes if seen and WANTED != 'quick' else ():
            more = check_test(mutant, test, objects, compiled, folder, memory)
            if more is None:
                raise Broken(f'{test} passed')
            seen += f'\n{more}'
    return seen


def chosen():
    part, parts = (int(word) for word in os.environ.get('KVD_MUTANTS_PART', '1/1').split('/'))
    if WANTED in ('quick', 'all'):
        some = [mutant for mutant in mutants.MUTANTS if mutant.quick or WANTED == 'all']
    else:
        some = [mutant for mutant in mutants.MUTANTS if mutant.name in WANTED.split(',')]
    return some[part - 1::parts]


def verdict(mutant, objects):
    """What noticed the mutant, and what is wrong; one of them is None."""
    if STOPPED.is_set():
        return None, 'stopped'
    try:
        seen = check(mutant, objects)
    except Broken as error:
        return None, str(error)
    return seen, None if seen else 'every test passed: ' + ', '.join(mutant.tests)


def main():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    some = chosen()
    objects = ninja_objects()
    failed = 0
    print(f'1..{len(some)}')
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, \
            contextlib.ExitStack() as stack:
        stack.callback(end_all)
        verdicts = pool.map(lambda mutant: verdict(mutant, objects), some)
        for number, (mutant, (seen, problem)) in enumerate(zip(some, verdicts), 1):
            failed += problem is not None
            print(f"{'not ok' if problem else 'ok'} {number} - {mutant.name}: {mutant.what}")
            for line in (problem or seen).splitlines():
                print(f'# {line}')
            sys.stdout.flush()
    print(f'# counted mutants-code {len(some) - failed}')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
