/** Sweeps to start from, and the ways of a drafted sweep in and out of the window. */
import { createStore } from 'zustand/vanilla';
import type { NamedSweeps } from '../../src-main/contract/calls.ts';
import { type Sweep, sweepSchema } from '../../src-main/contract/sweep.ts';
import type { Client } from '../client/client.ts';
import { type createDraftStore, draftOf } from './draft.ts';

interface SweepsStore {
  /** Undefined until they are known. */
  readonly named: NamedSweeps | undefined;
}

const firstSweep = 'quick';
const largestFile = 4 * 1024 * 1024;

export function createSweepsStore(client: Client, draft: ReturnType<typeof createDraftStore>) {
  const store = createStore<SweepsStore>(() => ({ named: undefined }));
  const keep = (named: NamedSweeps): void => store.setState({ named });
  /** In place of what is drafted; undo brings that back. */
  const open = (sweep: Sweep): void => draft.edit(draftOf(sweep));
  return {
    ...store,
    /** A newcomer finds the sweep `quick` ready to run. */
    begin: async (): Promise<void> => {
      const named = await client.api.sweeps({});
      keep(named);
      const quick = named.builtin.find(({ name }) => name === firstSweep);
      if (quick) draft.begin(draftOf(quick));
    },
    save: (sweep: Sweep) => client.api.saveSweep({ sweep }).then(keep),
    remove: (name: string) => client.api.deleteSweep({ name }).then(keep),
    open,
    /** @throws Error saying what is wrong with the file, and where in it */
    openFile: async (file: File): Promise<void> => {
      if (file.size > largestFile) throw new Error(`${file.name} is too large for a sweep`);
      open(readSweepText(await file.text(), file.name));
    },
  };
}

export function readSweepText(text: string, name: string): Sweep {
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch (error) {
    throw new Error(`${name} is no JSON: ${(error as Error).message}`);
  }
  const sweep = sweepSchema.safeParse(content);
  if (sweep.success) return sweep.data;
  const [{ path, message }] = sweep.error.issues;
  throw new Error(`${name} is no sweep: ${path.length > 0 ? `${path.join('.')}: ` : ''}${message}`);
}
