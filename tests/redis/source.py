# SPDX-License-Identifier: MIT
#
# Gets Redis's own test suite, and the hiredis that it brings, out of Debian's source package. The
# package sources are derived from those the machine has, in a folder of our own: what the system
# has configured is only read.
import glob
import os
import re
import shutil
import subprocess
import tarfile
import tempfile

PACKAGE = 'redis'
WANTED = '7.0.'  # what the list of known differences was written for
PARTS = ('tests/', 'deps/hiredis/')
LIMIT_S = 240


class NotHad(Exception):
    """The suite cannot be had here; str() says why."""


def apt_paths():
    """The file and the folder in which this machine's package sources stand."""
    run = subprocess.run(
        ['apt-config', 'shell', 'LIST', 'Dir::Etc::sourcelist/f', 'PARTS',
         'Dir::Etc::sourceparts/d'], capture_output=True, text=True, check=True)
    paths = dict(re.findall(r"^(\w+)='(.*)'$", run.stdout, re.M))
    return paths.get('LIST', ''), paths.get('PARTS', '')


def suites():
    """Names of the suites of this Debian, not of others' packages for it."""
    with open('/etc/os-release', encoding='utf-8') as release:
        match = re.search(r'^VERSION_CODENAME="?(\w+)', release.read(), re.M)
    name = match.group(1) if match else 'stable'
    return (name, f'{name}-updates', f'{name}-security', f'{name}/updates')


def line_sources(text, wanted):
    """deb-src lines for the deb lines of a .list file."""
    for line in text.split('\n'):
        match = re.match(r'deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)', line.strip())
        if match and match.group(3) in wanted and 'main' in match.group(4).split():
            yield f'deb-src {match.group(1) or ""}{match.group(2)} {match.group(3)} main\n'


def stanza_sources(text, wanted):
    """The same for the stanzas of a .sources file; options, and keys in place, are kept."""
    text = re.sub(r'^#.*\n', '', text, flags=re.M)
    for stanza in re.split(r'\n\s*\n', text):
        fields = {name.lower(): value for name, value in
                  re.findall(r'^([\w-]+):[ \t]*(.*)$', stanza, re.M)}
        here = [suite for suite in fields.get('suites', '').split() if suite in wanted]
        if not here or 'deb' not in fields.get('types', '').split() or \
                'main' not in fields.get('components', '').split() or \
                fields.get('enabled', 'yes').strip().lower() in ('no', 'false', '0'):
            continue
        for name, value in (('Types', 'deb-src'), ('Suites', ' '.join(here)),
                            ('Components', 'main')):
            stanza = re.sub(rf'(?im)^{name}:.*$', f'{name}: {value}', stanza)
        yield stanza.strip('\n') + '\n\n'


def write_sources(folder):
    """Writes the derived sources into `folder`. How many there are."""
    listing, parts = apt_paths()
    count = 0
    for path in [listing, *sorted(glob.glob(os.path.join(parts, '*')))]:
        derive, ending = {'.list': (line_sources, 'list'),
                          '.sources': (stanza_sources, 'sources')}.get(
                              os.path.splitext(path)[1], (None, ''))
        if derive and os.path.isfile(path):
            with open(path, encoding='utf-8', errors='replace') as file:
                found = list(derive(file.read(), suites()))
            if found:
                with open(os.path.join(folder, f'{count}.{ending}'), 'w', encoding='utf-8') as out:
                    out.write(''.join(found))
            count += len(found)
    return count


def apt_get(folder, *arguments):
    options = {'Dir::Etc::sourcelist': '/dev/null', 'Dir::Etc::sourceparts': f'{folder}/sources',
               'Dir::State::lists': f'{folder}/lists', 'Dir::Cache': f'{folder}/cache',
               'Acquire::Languages': 'none', 'Acquire::Retries': '2',
               'Acquire::http::Timeout': '20', 'Acquire::https::Timeout': '20'}
    command = ['apt-get', '-q', *(word for name, value in options.items()
                                  for word in ('-o', f'{name}={value}')), *arguments]
    try:
        return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise NotHad(f"apt-get {arguments[0]} took longer than {LIMIT_S} s") from None


def complaints(*runs):
    """The first thing that the first of them complained about."""
    for run in runs:
        for line in (run.stdout + run.stderr).split('\n'):
            if line[:2] in ('E:', 'W:'):
                return line
    return f'apt-get ended with {runs[-1].returncode}'


def download(folder):
    """Path of the upstream archive, downloaded into `folder`; apt has checked its signature."""
    for name in ('sources', 'lists/partial', 'cache/archives/partial'):
        os.makedirs(os.path.join(folder, name))
    if not shutil.which('apt-get'):
        raise NotHad('there is no apt-get')
    if write_sources(os.path.join(folder, 'sources')) == 0:
        raise NotHad('no package sources of this Debian are configured to derive source ones from')
    updated = apt_get(folder, 'update')
    got = apt_get(folder, 'source', '--download-only', PACKAGE)
    archives = glob.glob(os.path.join(folder, f'{PACKAGE}_*.orig.tar.*[a-z2]'))
    archives = [path for path in archives if not path.endswith('.asc')]
    if not archives:
        raise NotHad(f"Debian's source package {PACKAGE} cannot be had: "
                     + complaints(updated, got))
    version = os.path.basename(archives[0]).split('_')[1]
    if not version.startswith(WANTED):
        raise NotHad(f"Debian's {PACKAGE} is {version.split('.orig')[0]} here, not {WANTED}*")
    return archives[0]


def unpack(archive, target):
    """The folder tests/ of the archive becomes target/tests, and so do the other PARTS."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            top, _, rest = member.name.partition('/')
            if top.startswith(f'{PACKAGE}-') and rest.startswith(PARTS) and member.isfile() \
                    and '..' not in rest.split('/'):
                path = os.path.join(target, rest)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, 'wb') as out:
                    shutil.copyfileobj(tar.extractfile(member), out)


def suite(build):
    """Folder in which Redis's tests/ stands, below the build folder; downloaded once. NotHad."""
    target = os.path.join(build, 'redis-source')
    if os.path.isdir(target):
        return target
    os.makedirs(build, exist_ok=True)
    folder = tempfile.mkdtemp(prefix='kvd-redis-source-')
    try:
        os.chmod(folder, 0o755)  # apt may download as another user
        archive = download(folder)
        fresh = tempfile.mkdtemp(prefix='redis-source.', dir=build)
        unpack(archive, fresh)
        if not os.path.isfile(os.path.join(fresh, 'tests', 'test_helper.tcl')):
            shutil.rmtree(fresh)
            raise NotHad(f'{os.path.basename(archive)} has no tests/test_helper.tcl')
        os.rename(fresh, target)
    except OSError as error:
        raise NotHad(f'{error}') from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return target
