/** Sweeps to start from, and the ways of a drafted sweep in and out of the window. */
import { createStore } from 'zustand/vanilla';
import type { NamedSweeps } from '../../src-main/contract/calls.ts';
import { phases, type Sweep, sweepSchema } from '../../src-main/contract/sweep.ts';
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
    /** Under another name, in place of the old one. */
    rename: async (sweep: Sweep, name: string): Promise<void> => {
      const taken = store.getState().named?.own.some((other) => other.name === name);
      if (taken && name !== sweep.name) throw new Error(`there is a sweep called ${name} already`);
      await client.api.saveSweep({ sweep: { ...sweep, name } });
      keep(name === sweep.name ? await client.api.sweeps({}) : await client.api.deleteSweep({ name: sweep.name }));
    },
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
  const strange = sweep.data?.axes.phase?.find((phase) => !(phases as readonly unknown[]).includes(phase));
  const wrong = [
    ...(sweep.error?.issues ?? []).map(({ path, message }) =>
      path.length > 0 ? `${path.join('.')}: ${message}` : message,
    ),
    // The form has a box for each phase; other axes may hold any text, and say what is wrong at their fields.
    ...(strange === undefined ? [] : [`axes.phase: expected one of ${phases.join(', ')} but received ${strange}`]),
  ];
  if (sweep.success && wrong.length === 0) return sweep.data;
  throw new Error(`${name} is no sweep: ${wrong.slice(0, mostComplaints).join('; ')}`);
}

const mostComplaints = 6;
