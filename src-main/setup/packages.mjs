/** Whether what lies in node_modules is what package-lock.json says, whoever installed it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

const readJson = (file) => JSON.parse(readFileSync(file, 'utf8'));

/**
 * npm writes node_modules/.package-lock.json when an installation is complete. It is compared with the lock file, and what is
 * on the disk with both: an installation that is stale, was broken off, lacks development packages or is half deleted differs.
 * @returns in a few words, what is not as the lock file says; undefined if nothing is
 */
export function whyNotInstalled(root) {
  try {
    const { '': lockedRoot, ...locked } = readJson(join(root, 'package-lock.json')).packages;
    const installed = installedIn(root);
    return (
      disagreement(readJson(join(root, 'package.json')), lockedRoot) ??
      difference(locked, installed) ??
      missingCommand(root, locked) ??
      incompletePackage(root, installed)
    );
  } catch (error) {
    return error.code === 'ENOENT' ? 'there is no complete installation yet' : error.message;
  }
}

/** Without what `npm install --no-save` added: it is nobody's concern. */
const installedIn = (root) =>
  Object.fromEntries(
    Object.entries(readJson(join(root, 'node_modules/.package-lock.json')).packages).filter(
      ([, { extraneous }]) => !extraneous,
    ),
  );

/** Where these two differ npm will refuse to install, and say so. */
function disagreement(manifest, lockedRoot) {
  for (const kind of ['dependencies', 'devDependencies']) {
    const [wanted, locked] = [manifest[kind] ?? {}, lockedRoot[kind] ?? {}];
    const name = Object.keys({ ...wanted, ...locked }).find((name) => wanted[name] !== locked[name]);
    if (name !== undefined) return `package-lock.json has another ${name} than package.json`;
  }
  return undefined;
}

function difference(locked, installed) {
  const extra = Object.keys(installed).find((path) => locked[path] === undefined);
  if (extra !== undefined) return `${nameOf(extra)} is no longer wanted`;
  // npm chooses between variants of a package for the C library at hand; the chosen ones tell which it is.
  const libraries = new Set(Object.values(installed).flatMap(({ libc = [] }) => libc));
  for (const [path, wanted] of Object.entries(locked)) {
    const found = installed[path];
    if (!found) {
      if (mayBeLeftOut(wanted, libraries)) continue;
      return `${nameOf(path)} is missing`;
    }
    if (found.version !== wanted.version || found.integrity !== wanted.integrity)
      return `${nameOf(path)} ${wanted.version} is wanted, ${found.version} is there`;
  }
  return undefined;
}

const nameOf = (path) => path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length);

/** Made for another system; or needed by such a package alone, which bears no mark but that it is optional. */
function mayBeLeftOut({ optional = false, os, cpu, libc }, libraries) {
  if (!optional) return false;
  const fits = (list, here) => list === undefined || list.includes(here);
  const isForHere =
    fits(os, process.platform) &&
    fits(cpu, process.arch) &&
    (libc === undefined || libraries.size === 0 || libc.some((name) => libraries.has(name)));
  return !isForHere || (os === undefined && cpu === undefined);
}

/** The steps of the set-up call tools by these names. */
function missingCommand(root, locked) {
  const there = new Set(readdirSync(join(root, 'node_modules/.bin')));
  for (const [path, { bin = {}, optional = false }] of Object.entries(locked)) {
    if (optional || !/^node_modules\/(@[^/]+\/)?[^/]+$/.test(path)) continue;
    const name = Object.keys(bin).find((name) => !there.has(name));
    if (name !== undefined) return `the command ${name} of ${nameOf(path)} is missing`;
  }
  return undefined;
}

function incompletePackage(root, installed) {
  const isWhole = ([path, { version }]) => {
    const file = join(root, path, 'package.json');
    return existsSync(file) && readJson(file).version === version;
  };
  const found = Object.entries(installed).find((one) => !isWhole(one));
  return found && `${nameOf(found[0])} is incomplete`;
}
