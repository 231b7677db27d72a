/** Sweeps to start from: those of the program, and those that the user named and kept, in one file beside the sessions. */
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { NamedSweeps } from '../contract/calls.ts';
import { InputError } from '../contract/input-error.ts';
import { mostKeptSweeps as mostSweeps, type Sweep, sweepShelfSchema } from '../contract/sweep.ts';
import { sweeps } from '../engine/sweeps.ts';
import { readWhole, writeWhole } from '../sessions/storage.ts';

const byName = (a: Sweep, b: Sweep): number => a.name.localeCompare(b.name);

export class SweepShelf {
  private readonly path: string;
  /** Changes wait for each other: each reads what the one before has written. */
  private last: Promise<unknown> = Promise.resolve();

  constructor(path: string) {
    this.path = path;
  }

  async list(): Promise<NamedSweeps> {
    return { builtin: Object.values(sweeps), own: await this.read() };
  }

  save(sweep: Sweep): Promise<NamedSweeps> {
    return this.change((own) => {
      const others = own.filter(({ name }) => name !== sweep.name);
      if (others.length >= mostSweeps) throw new InputError(`at most ${mostSweeps} sweeps are kept: delete some first`);
      return [...others, sweep].sort(byName);
    });
  }

  remove(name: string): Promise<NamedSweeps> {
    return this.change((own) => own.filter((sweep) => sweep.name !== name));
  }

  private change(edit: (own: Sweep[]) => Sweep[]): Promise<NamedSweeps> {
    const changed = this.last.then(async () => {
      const own = edit(await this.read());
      await mkdir(dirname(this.path), { recursive: true });
      await writeWhole(this.path, Buffer.from(`${JSON.stringify(own, null, 2)}\n`));
      return { builtin: Object.values(sweeps), own };
    });
    this.last = changed.catch(() => undefined);
    return changed;
  }

  /** @throws InputError where the file is not ours any more: it is left alone */
  private async read(): Promise<Sweep[]> {
    if (!existsSync(this.path)) return [];
    const bytes = await readWhole(this.path);
    try {
      return sweepShelfSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    } catch {
      throw new InputError(`${this.path} does not hold sweeps: move it away to begin anew`);
    }
  }
}
