/** Model folders as somebody who wants to read other files would write them. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InputError } from '../../src-main/contract/input-error.ts';
import { openCheckpoint } from '../../src-main/models/checkpoint.ts';
import { findModel } from '../../src-main/models/find.ts';
import type { Chance } from './effort.ts';

const builtin = join(import.meta.dirname, '../../src-main/models/builtin');
const goodConfig = readFileSync(join(builtin, 'byte-mqa/config.json'));

/** A safetensors file without tensors: enough to be opened, and then refused for what it lacks. */
const emptyWeights = Buffer.from('\x02\0\0\0\0\0\0\0{}', 'latin1');
const weightsName = 'model.safetensors';

export class HostileFolders {
  readonly model: string;
  private readonly root: string;
  private readonly chance: Chance;

  constructor(root: string, chance: Chance) {
    this.root = root;
    this.chance = chance;
    this.model = join(root, 'models', 'm');
    // What must not be opened: beside the folder, above it, and one whose name begins like it.
    for (const folder of [
      join(root, 'models'),
      root,
      join(root, 'models', 'm-secret'),
      join(root, 'models', 'm.safetensors'),
    ]) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'config.json'), goodConfig);
      for (const name of [weightsName, 'x.safetensors', 'model-00001-of-00001.safetensors'])
        writeFileSync(join(folder, name), emptyWeights);
    }
    execFileSync('mkfifo', [join(root, 'pipe')]);
  }

  /** Writes the next folder. */
  build(): void {
    const { chance, model } = this;
    rmSync(model, { recursive: true, force: true });
    mkdirSync(model, { recursive: true });
    this.put('config.json', goodConfig, 0.7);
    if (chance.isTrue(0.4)) this.put(weightsName, emptyWeights, 0.3);
    else {
      const names = Array.from({ length: 1 + chance.below(3) }, () => this.shardName());
      const map = Object.fromEntries(names.map((name, i) => [`t${i}`, name]));
      this.put('model.safetensors.index.json', Buffer.from(JSON.stringify({ weight_map: map })), 0.9);
      for (const name of names)
        if (/^[\w.-]{1,200}$/.test(name) && !/^\.+$/.test(name)) this.put(name, emptyWeights, 0.4);
    }
  }

  /** A file as it should be, or something else under its name. */
  private put(name: string, content: Uint8Array, honest: number): void {
    const { chance, root, model } = this;
    const path = join(model, name);
    rmSync(path, { recursive: true, force: true });
    if (chance.isTrue(honest)) return void writeFileSync(path, content);
    const target = chance.one([
      join(root, 'models', 'm-secret', name),
      join(root, 'models', 'm-secret', 'x.safetensors'),
      join(root, name),
      '../m-secret/config.json',
      '../../config.json',
      '../m.safetensors/model.safetensors',
      'link',
      name,
      '/etc/passwd',
      '/dev/zero',
      '/dev/stdin',
      '/proc/self/environ',
      '../../pipe',
      join(root, 'pipe'),
      '.',
      '..',
      'inner/file',
    ]);
    if (target === 'inner/file') {
      mkdirSync(join(model, 'inner'), { recursive: true });
      writeFileSync(join(model, 'inner/file'), content);
    }
    if (target === 'link') {
      rmSync(join(model, 'link'), { force: true });
      symlinkSync(
        chance.one(['../m-secret/x.safetensors', '../m-secret/config.json', '/etc/passwd']),
        join(model, 'link'),
      );
    }
    if (chance.isTrue(0.1)) mkdirSync(path, { recursive: true });
    else symlinkSync(target, path);
  }

  private shardName(): string {
    const { chance, root } = this;
    return chance.one([
      'model-00001-of-00001.safetensors',
      'x.safetensors',
      'y.safetensors',
      '../m-secret/x.safetensors',
      '../x.safetensors',
      '../../x.safetensors',
      join(root, 'x.safetensors'),
      '/etc/passwd',
      '/dev/zero',
      'a/../../x.safetensors',
      './../x.safetensors',
      '..%2fx.safetensors',
      '..\\x.safetensors',
      '....//x.safetensors',
      '..',
      '',
      'x.safetensors\0.txt',
      'x\n.safetensors',
      `${'a'.repeat(300)}.safetensors`,
      'pipe.safetensors',
      '__proto__',
    ]);
  }
}

/** Opens a folder as a command would. @returns whether its files were accepted; anything but a sentence is thrown on. */
export async function tryFolder(model: string): Promise<boolean> {
  try {
    const { config } = await findModel(model, builtin);
    await openCheckpoint(model, config);
    return true;
  } catch (error) {
    if (error instanceof InputError) return error.message.startsWith('expected weights for tensor');
    throw error;
  }
}

/** Which of these opens led out of the folder, or to no regular file. */
export const escapes = (opened: readonly string[], model: string): string[] =>
  opened.filter((path) => !path.startsWith(`${model}/`) || !statSync(path, { throwIfNoEntry: false })?.isFile());
