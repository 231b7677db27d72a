/** An installation is taken as it is only where it is what the lock file says. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import { join, resolve } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

const setup = resolve(import.meta.dirname, '../../src-main/setup');
const { whyNotInstalled } = (await import(join(setup, 'packages.mjs'))) as {
  whyNotInstalled(root: string): string | undefined;
};

interface Locked {
  readonly version: string;
  readonly bin?: Readonly<Record<string, string>>;
  readonly optional?: boolean;
  readonly extraneous?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
}
type Packages = Record<string, Locked>;

const here = { optional: true, os: [process.platform], cpu: [process.arch] };
const locked: Packages = {
  'node_modules/engine': { version: '1.0.0' },
  'node_modules/engine/node_modules/part': { version: '3.0.0' },
  'node_modules/tool': { version: '2.0.0', bin: { tool: 'tool.js' } },
  'node_modules/tool-here': { version: '2.0.0', ...here, libc: ['glibc'] },
  'node_modules/tool-here-musl': { version: '2.0.0', ...here, libc: ['musl'] },
  'node_modules/tool-elsewhere': { version: '2.0.0', optional: true, os: ['plan9'], cpu: [process.arch] },
  'node_modules/part-of-tool-elsewhere': { version: '2.0.0', optional: true },
};
const { 'node_modules/tool-here-musl': _, 'node_modules/tool-elsewhere': __, ...forHere } = locked;
const { 'node_modules/part-of-tool-elsewhere': ___, ...installed } = forHere;

/** @returns a folder with a lock file, a package.json that agrees with it, and what npm leaves when it has installed `packages`. */
async function installation(packages: Packages = installed): Promise<string> {
  const root = await mkdtemp(join(os.tmpdir(), 'fastmqa-packages-'));
  onTestFinished(() => rm(root, { recursive: true }));
  const dependencies = { dependencies: { engine: '1.0.0' }, devDependencies: { tool: '2.0.0' } };
  const write = async (name: string, value: unknown): Promise<void> => {
    await mkdir(join(root, name, '..'), { recursive: true });
    await writeFile(join(root, name), JSON.stringify(value));
  };
  await write('package.json', dependencies);
  await write('package-lock.json', { packages: { '': dependencies, ...locked } });
  for (const [path, { version }] of Object.entries(packages)) await write(`${path}/package.json`, { version });
  await write('node_modules/.bin/tool', '');
  await write('node_modules/.package-lock.json', { packages });
  return root;
}

const without = (name: string): Packages =>
  Object.fromEntries(Object.entries(installed).filter(([path]) => path !== `node_modules/${name}`));

test('what npm installed is not installed again, whoever called it', async () => {
  expect(whyNotInstalled(await installation())).toBeUndefined();
  const own = { 'node_modules/own': { version: '9.0.0', extraneous: true } }; // npm install --no-save own
  expect(whyNotInstalled(await installation({ ...installed, ...own }))).toBeUndefined();
});

test.each<[string, Packages, string]>([
  ['without development packages', without('tool'), 'tool is missing'],
  ['without optional packages', without('tool-here'), 'tool-here is missing'],
  [
    'for another system',
    { ...without('tool-here'), 'node_modules/tool-elsewhere': locked['node_modules/tool-elsewhere'] },
    'tool-here is missing',
  ],
  [
    'of an older lock file',
    { ...installed, 'node_modules/engine': { version: '0.9.0' } },
    'engine 1.0.0 is wanted, 0.9.0 is there',
  ],
  [
    'of a lock file that had one more',
    { ...installed, 'node_modules/engine/node_modules/old': { version: '1.0.0' } },
    'old is no longer wanted',
  ],
])('an installation %s is renewed', async (_, packages, why) => {
  expect(whyNotInstalled(await installation(packages))).toBe(why);
});

test.each([
  ['node_modules', 'there is no complete installation yet'],
  ['node_modules/.package-lock.json', 'there is no complete installation yet'],
  ['node_modules/.bin/tool', 'the command tool of tool is missing'],
  ['node_modules/engine/node_modules/part', 'part is incomplete'],
])('an installation that lacks %s is renewed', async (path, why) => {
  const root = await installation();
  await rm(join(root, path), { recursive: true });
  expect(whyNotInstalled(root)).toBe(why);
});

test('an update that was broken off is renewed', async () => {
  const root = await installation();
  await writeFile(join(root, 'node_modules/engine/package.json'), '{"version":"1.1.0"}');
  expect(whyNotInstalled(root)).toBe('engine is incomplete');
});

test('npm is asked where package.json was changed and the lock file not: it refuses in words', async () => {
  const root = await installation();
  await writeFile(join(root, 'package.json'), '{"dependencies":{"engine":"1.1.0"}}');
  expect(whyNotInstalled(root)).toBe('package-lock.json has another engine than package.json');
});
