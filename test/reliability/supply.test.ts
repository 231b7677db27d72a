/** S8: what is installed is what was locked, and installing runs nobody's script. Advisories are looked up by `.ci/run`. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { reached } from './effort.ts';

interface Locked {
  readonly version: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly hasInstallScript?: boolean;
  readonly optional?: boolean;
}

const root = join(import.meta.dirname, '../..');
const read = (name: string) => JSON.parse(readFileSync(join(root, name), 'utf8'));

test('S8: every package is locked by its checksum, and none runs a script while it is installed', (context) => {
  const packages: [string, Locked][] = Object.entries(
    read('package-lock.json').packages as Record<string, Locked>,
  ).filter(([name]) => name !== '');
  for (const [name, { integrity, resolved }] of packages) {
    expect(integrity, name).toMatch(/^sha512-/);
    expect(resolved ?? 'https:', name).toMatch(/^https:/);
  }
  const scripts = packages
    .filter(([, { hasInstallScript }]) => hasInstallScript)
    .map(([path]) => path.replace(/^.*node_modules\//, ''));
  const npmrc = readFileSync(join(root, '.npmrc'), 'utf8');
  // Commands that are called by name run as before; what a package wants to run while it is installed does not.
  expect(npmrc).toMatch(/^ignore-scripts=true$/m);
  const { dependencies, devDependencies } = read('package.json');
  for (const [name, version] of Object.entries({ ...dependencies, ...devDependencies }))
    expect(version, name).toMatch(/^\d+\.\d+\.\d+$/);
  reached(
    context,
    `S8  ${packages.length} packages locked by checksum, exact versions, 0 install scripts run (${scripts.length} wanted to)`,
  );
});
