/**
 * Makes a fresh clone ready and then does what was asked: `start`, `run COMMAND…`, `test`, `build`, `check` or `screenshots`.
 * Runs before anything is installed, so it uses nothing but Node. Everything it says goes to stderr.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { electronBinary, fetchScript, obstacleOf } from './desktop.mjs';
import { whyNotInstalled } from './packages.mjs';
import { inTurn } from './turn.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const tool = (name) => join(root, 'node_modules/.bin', name);
const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ['npm'];

/**
 * A step is redone when the content of an input changed; its stamp lives beside its output and dies with it. The packages
 * have npm's own stamp: whoever installed them, they are installed once.
 */
const steps = {
  install: {
    says: 'installing npm packages, about 20 s',
    why: () => whyNotInstalled(root),
    command: [...npm, 'ci', '--include=dev', '--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error'],
    remedy: (log) =>
      /EUSAGE|in sync/.test(log)
        ? 'package-lock.json does not match package.json: run `npm install` and commit the lock file.'
        : 'npm could not install the packages: check the network (or `npm config get registry`) and run the command again.',
  },
  native: {
    says: 'building the native engine, about 60 s the first time',
    inputs: ['kernels', 'native', 'package-lock.json'],
    output: 'native/build/Release/fastmqa.node',
    stamp: 'native/build/.fastmqa.json',
    // The tests build more in the same folder.
    command: [
      ...[tool('cmake-js'), 'compile', '--directory', 'native', '--config', 'Release'],
      ...['--parallel', '2', '--target', 'fastmqa_native'],
    ],
    remedy: (log) => {
      if (/CMake executable is not found|cmake.*(ENOENT|not found)/i.test(log))
        return 'CMake 3.20 or newer is needed: install it (Debian: apt install cmake; macOS: brew install cmake).';
      if (/No CMAKE_CXX_COMPILER|C\+\+ compiler.*not (found|able|available)/i.test(log))
        return 'A C++17 compiler is needed: install one (Debian: apt install g++; macOS: xcode-select --install).';
      if (/No CMAKE_MAKE_PROGRAM|Make(file)?s?.*not found/i.test(log))
        return 'A build tool is needed: install make or ninja (Debian: apt install make).';
      return 'The native engine does not compile here: GCC 9, Clang 10 or newer is needed; the lines above name the cause.';
    },
  },
  scripts: {
    says: 'compiling TypeScript, about 5 s',
    inputs: ['src-main', 'src-renderer/series', 'tsconfig.json', 'package-lock.json'],
    output: 'dist/src-main/hosts/cli/main.js',
    stamp: 'dist/.fastmqa.json',
    command: [tool('tsc'), '--project', 'tsconfig.json'],
    remedy: () => 'The TypeScript sources have errors: the lines above name file and line.',
  },
  window: {
    says: 'building the window, about 10 s',
    inputs: ['src-renderer', 'src-main', 'electron.vite.config.ts', 'package-lock.json'],
    output: 'dist/renderer/index.html',
    stamp: 'dist/renderer/.fastmqa.json',
    command: [tool('electron-vite'), 'build', '--logLevel', 'warn'],
    remedy: () => 'The window does not build: the lines above name file and line.',
  },
};

/** Not part of a fresh clone's set-up: it takes minutes, and needs a CUDA compiler that few machines have. */
const cuda = {
  says: 'building the CUDA backend for compute capability 7.5, 8.0 and 9.0, about 5 minutes on 2 cores',
  inputs: ['kernels'],
  output: 'native/build/Release/libfastmqa-cuda.so',
  stamp: 'native/build/cuda/.fastmqa.json',
  command: [process.execPath, join(root, 'src-main/setup/build-cuda.mjs')],
  remedy: (log) =>
    /CMAKE_CUDA_COMPILER|nvcc.*not found/i.test(log)
      ? 'A CUDA compiler is needed: install the CUDA toolkit, 12 or newer, and put nvcc on the PATH.'
      : 'The CUDA backend does not compile here: the lines above name the cause.',
};

const say = (line) => process.stderr.write(`${line}\n`);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

function* filesUnder(path) {
  if (!statSync(path).isDirectory()) return void (yield path);
  for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (/^(build.*|node_modules)$/.test(entry.name) || entry.name.startsWith('.')) continue;
    yield* filesUnder(join(path, entry.name));
  }
}

/** `quick` from names, times and sizes decides most often; `content` decides where times changed and nothing else. */
function signature(step, of) {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch} ${of}\n`);
  for (const input of step.inputs) {
    for (const file of filesUnder(join(root, input))) {
      const { mtimeMs, size } = statSync(file);
      hash.update(`${relative(root, file)}\0`).update(of === 'quick' ? `${mtimeMs} ${size}\n` : readFileSync(file));
    }
  }
  return hash.digest('hex');
}

function isCurrent(step) {
  if (step.why) return step.why() === undefined;
  const stampFile = join(root, step.stamp);
  if (!existsSync(stampFile) || !existsSync(join(root, step.output))) return false;
  let stamp;
  try {
    stamp = JSON.parse(readFileSync(stampFile, 'utf8'));
  } catch {
    return false;
  }
  const quick = signature(step, 'quick');
  if (stamp.quick === quick) return true;
  const content = signature(step, 'content');
  if (stamp.content !== content) return false;
  try {
    writeStamp(step, { quick, content });
  } catch {
    // It only saves time: a folder that cannot be written to is read again.
  }
  return true;
}

function writeStamp(step, stamp) {
  const file = join(root, step.stamp);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, JSON.stringify(stamp));
  renameSync(`${file}.new`, file);
}

const environment = {
  ...process.env,
  // cmake and npm look for `node` by name: let them find this one.
  PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH ?? ''}`,
  // Set in terminals that are windows of Electron themselves; it would make ours a plain Node.
  ELECTRON_RUN_AS_NODE: undefined,
};

/** Runs a step's tool in a process group of its own, so that an interrupt ends its compilers too. */
function build(command) {
  return new Promise((done) => {
    let log = '';
    const child = spawn(command[0], command.slice(1), {
      cwd: root,
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const interrupt = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // It ended by itself in the meantime.
      }
      say('interrupted');
      process.exit(signal === 'SIGINT' ? 130 : 143);
    };
    process.once('SIGINT', interrupt).once('SIGTERM', interrupt);
    const finish = (succeeded) => {
      process.off('SIGINT', interrupt).off('SIGTERM', interrupt);
      done({ succeeded, log });
    };
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        log = (log + text).slice(-20_000);
      });
    }
    child.on('error', (error) => {
      log += `\n${command[0]}: ${error.message}`;
      finish(false);
    });
    child.on('close', (code) => finish(code === 0));
  });
}

async function ensure(step) {
  if (isCurrent(step)) return;
  try {
    await inTurn(
      join(root, 'dist/.set-up-at-work'),
      () => isCurrent(step) || redo(step), // whoever was before us may have done it
      () => say('another command is setting this folder up: waiting for it…'),
    );
  } catch (error) {
    if (error.syscall === undefined) throw error;
    say(`cannot set up ${root}: ${error.message}`);
    process.exit(1);
  }
}

async function redo(step) {
  const since = performance.now();
  const why = step.why?.();
  say(`${step.says}${why === undefined ? '' : ` (${why})`}…`);
  const stamp = step.stamp && { quick: signature(step, 'quick'), content: signature(step, 'content') };
  const { succeeded, log } = await build(step.command);
  if (!succeeded) {
    say(`${log.trimEnd().split('\n').slice(-30).join('\n')}\n\n${step.remedy(log)}`);
    process.exit(1);
  }
  if (stamp) writeStamp(step, stamp);
  say(`  done in ${seconds(since)}`);
}

async function prepare() {
  for (const step of Object.values(steps)) await ensure(step);
  if (existsSync(join(root, cuda.output)) && !isCurrent(cuda))
    say('The CUDA backend is older than the kernels: run `npm run build:cuda`.');
}

/** Runs a tool in front of the user; resolves to its exit code. */
function show(command) {
  return new Promise((done) => {
    const child = spawn(command[0], command.slice(1), { cwd: root, env: environment, stdio: 'inherit' });
    // A terminal delivers its interrupt to the whole group: the child has it already.
    const interrupt = () => process.stdin.isTTY || child.kill('SIGINT');
    const terminate = () => child.kill('SIGTERM');
    process.on('SIGINT', interrupt).on('SIGTERM', terminate);
    child.on('error', (error) => {
      say(`${command[0]}: ${error.message}`);
      done(1);
    });
    child.on('close', (code, signal) => done(signal === 'SIGINT' ? 130 : signal ? 143 : code));
  });
}

/** The command line runs in this very process: one start-up, one exit code, and each signal arrives once. */
async function runCommandLine(args) {
  await prepare();
  const main = join(root, 'dist/src-main/hosts/cli/main.js');
  // npm changes to the package's root; file names are meant where the user stands.
  if (process.env.npm_lifecycle_event === 'fastmqa' && process.env.INIT_CWD) process.chdir(process.env.INIT_CWD);
  process.argv = [process.execPath, main, ...args];
  await import(pathToFileURL(main).href);
}

async function inOrder(...commands) {
  for (const command of commands) {
    const code = await show(command);
    if (code !== 0) return code;
  }
  return 0;
}

const electronSeconds = 10;

/** The desktop app where it can be had, or else the same app in a browser. */
async function start(args) {
  await prepare();
  const words = args.map((word) => (word.endsWith('.fmqa') ? resolve(process.env.INIT_CWD ?? '.', word) : word));
  const obstacle = await desktop(words);
  if (obstacle === undefined) return;
  say(`No desktop window: ${obstacle}. The same app in a browser:`);
  await runCommandLine(['serve', ...words]);
}

/** Opens the desktop app and waits for its end. @returns why it cannot be opened, or nothing */
async function desktop(words) {
  const obstacle = obstacleOf({ platform: process.platform, environment, userId: process.getuid?.() });
  if (obstacle !== undefined) return obstacle;
  if (!electronBinary(root, environment)) {
    if (environment.ELECTRON_SKIP_BINARY_DOWNLOAD)
      return 'there is no Electron binary, and ELECTRON_SKIP_BINARY_DOWNLOAD is set';
    say('fetching the Electron binary, once…');
    const { log } = await build([process.execPath, fetchScript(root)]);
    const cause = log.trim().split('\n')[0];
    if (!electronBinary(root, environment)) return `the Electron binary cannot be fetched (${cause})`;
  }
  const since = performance.now();
  let wasInterrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.once(signal, () => {
      wasInterrupted = true;
    });
  }
  const code = await show([electronBinary(root, environment), join(root, 'dist/electron/main.js'), ...words]);
  const endedAtOnce = code !== 0 && !wasInterrupted && performance.now() - since < electronSeconds * 1000;
  if (endedAtOnce) return `Electron ended at once, with exit code ${code}`;
  process.exitCode = code;
  return undefined;
}

const verbs = {
  start,
  run: runCommandLine,
  build: prepare,
  cuda: async () => {
    await prepare();
    await ensure(cuda);
  },
  package: async (args) => {
    await prepare();
    await ensure(cuda);
    process.exitCode = await show([process.execPath, join(root, 'src-main/setup/package.mjs'), ...args]);
  },
  test: async (args) => {
    await prepare();
    process.exitCode = await show([tool('vitest'), 'run', ...args]);
  },
  soak: async (args) => {
    await prepare();
    environment.FASTMQA_EFFORT = 'soak';
    process.exitCode = await show([tool('vitest'), 'run', 'test/reliability', ...args]);
  },
  check: async () => {
    await ensure(steps.install);
    process.exitCode = await inOrder(
      [tool('tsc'), '--project', 'test/tsconfig.json'],
      [tool('tsc'), '--project', 'src-renderer/tsconfig.json'],
      [tool('biome'), 'check'],
      [tool('vitest'), 'run', 'test/import-table.test.ts'],
    );
  },
  screenshots: async () => {
    await prepare();
    process.exitCode = await show([process.execPath, 'test/run-program.mjs', 'test/e2e/screenshots.ts']);
  },
};

const oldest = [20, 19];
const [major, minor] = process.versions.node.split('.').map(Number);
if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
  say(`expected Node ${oldest.join('.')} or newer but received ${process.version}`);
  process.exit(2);
}
const [verb, ...args] = process.argv.slice(2);
if (!Object.hasOwn(verbs, verb ?? '')) {
  say(`expected one of ${Object.keys(verbs).join(', ')} for the set-up command but received ${verb ?? 'nothing'}`);
  process.exit(2);
}
await verbs[verb](args);
