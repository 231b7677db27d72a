/** The library of sessions as this window knows it, and what can be done to a session. */
import { createStore } from 'zustand/vanilla';
import { type Library, largestSessionBytes, type SessionSummary } from '../../src-main/contract/library.ts';
import type { Place } from '../../src-main/contract/places.ts';
import { isActive } from '../../src-main/contract/run-state.ts';
import type { ExportFormat, Label } from '../../src-main/contract/session.ts';
import type { Client } from '../client/client.ts';
import type { createRunStore } from './run.ts';

export interface LibraryStore {
  /** Undefined until the host has told it. */
  readonly library: Library | undefined;
  /** Thrown away last, and not restored yet. `id`: in the trash. */
  readonly thrownAway: { readonly id: string; readonly name: string } | undefined;
  readonly search: string;
  /** The session whose name and tags are being edited. */
  readonly editing: string | undefined;
}

/** What a dropped or chosen file offers; `File` fits. */
export interface GivenFile {
  readonly name: string;
  readonly size: number;
  arrayBuffer(): Promise<ArrayBuffer>;
}

export interface LibraryDeeds {
  readonly client: Client;
  readonly run: ReturnType<typeof createRunStore>;
  /** Runs a deed and tells its failure. */
  readonly attempt: (deed: () => Promise<unknown>) => Promise<void>;
  /** Where a sweep is to be measured. */
  readonly placeChosen: () => { readonly place?: Place };
  /** Nothing of the view that is about points outlives them. */
  readonly clearSelection: () => void;
}

export function createLibraryStore({ client, run, attempt, placeChosen, clearSelection }: LibraryDeeds) {
  const store = createStore<LibraryStore>(() => ({
    library: undefined,
    thrownAway: undefined,
    search: '',
    editing: undefined,
  }));
  const { api } = client;
  const { setState } = store;

  let asking = false;
  let again = false;
  /** One question at a time; what changes meanwhile is asked about once more. */
  async function refresh(): Promise<void> {
    again = asking;
    if (asking) return;
    asking = true;
    await attempt(async () => setState({ library: await api.library({}) }));
    asking = false;
    if (again) await refresh();
  }

  const open = (id: string) =>
    attempt(async () => {
      await api.openSession({ id });
      clearSelection();
    });

  return {
    ...store,
    start: (): void => {
      void refresh();
      run.subscribe(({ run: now }, { run: before }) => {
        if (now.libraryChanges !== before.libraryChanges) void refresh();
      });
    },
    search: (text: string) => setState({ search: text }),
    edit: (id: string | undefined) => setState({ editing: id }),
    open,
    /** Measures the points that a session lacks. */
    continueMeasuring: (id: string) =>
      attempt(async () => {
        clearSelection();
        await api.continueSession({ id, ...placeChosen() });
      }),
    label: (id: string, label: Label) =>
      attempt(async () => {
        await api.labelSession({ id, label });
        setState({ editing: undefined });
      }),
    throwAway: ({ id, name }: SessionSummary) =>
      attempt(async () => setState({ thrownAway: { id: await api.trashSession({ id }), name } })),
    restore: (id: string) =>
      attempt(async () => {
        await api.restoreSession({ id });
        setState(({ thrownAway }) => (thrownAway?.id === id ? { thrownAway: undefined } : {}));
      }),
    emptyTrash: () =>
      attempt(async () => {
        await api.emptyTrash({});
        setState({ thrownAway: undefined });
      }),
    acceptCrash: (id: string) => attempt(() => api.acceptCrash({ id })),
    export: (id: string, format: ExportFormat | 'fmqa') => api.exportSession({ id, format }),
    /** Keeps the files that are sessions and shows the last one, unless a sweep runs. */
    take: (files: readonly GivenFile[]) =>
      attempt(async () => {
        let last: SessionSummary | undefined;
        for (const file of files) last = await api.importSession(await encoded(file));
        if (last && !isActive(run.getState().run)) await open(last.id);
      }),
  };
}

async function encoded(file: GivenFile): Promise<{ fileName: string; base64: string }> {
  const { name, size } = file;
  if (size > largestSessionBytes)
    throw new Error(`${name} is larger than ${largestSessionBytes / 1024 ** 2} MiB, the most a session may take`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = '';
  // In parts: a call with millions of arguments fails.
  for (let at = 0; at < bytes.length; at += 0x8000) text += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return { fileName: name, base64: btoa(text) };
}

/** Words that must all be in the name, a tag, a level, the backend, the machine or the status. */
export function searchSessions(sessions: readonly SessionSummary[], text: string): readonly SessionSummary[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length === 0) return sessions;
  return sessions.filter(({ name, tags, levels, backends, cpu, status }) => {
    const all = [name, ...tags, ...levels, ...backends, cpu, status].join('\n').toLowerCase();
    return words.every((word) => all.includes(word));
  });
}
