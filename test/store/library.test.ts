import { expect, test, vi } from 'vitest';
import type { Library, SessionSummary } from '../../src-main/contract/library.ts';
import { noRun, type RunState } from '../../src-main/contract/run-state.ts';
import type { Client } from '../../src-renderer/client/client.ts';
import { createLibraryStore, searchSessions } from '../../src-renderer/store/library.ts';
import { createRunStore } from '../../src-renderer/store/run.ts';
import { createViewStore, mostBaselines } from '../../src-renderer/store/view.ts';
import { until } from '../load.ts';

const session = (name: string, more: Partial<SessionSummary> = {}): SessionSummary => ({
  id: name,
  name,
  tags: [],
  startedAt: '2026-01-01T00:00:00Z',
  status: 'complete',
  measured: 1,
  failed: 0,
  skipped: 0,
  levels: ['baseline'],
  backends: ['cpu'],
  cpu: 'Test CPU',
  bytes: 1,
  file: `/${name}.fmqa`,
  damagedLines: 0,
  isUnattended: false,
  isOutside: false,
  ...more,
});
const empty: Library = { folder: '/s', sessions: [], trash: [], unreadable: [] };

function createStore(api: Partial<Client['api']>, run: RunState = noRun) {
  const client = { api: { library: async () => empty, ...api }, subscribe: () => () => undefined } as unknown as Client;
  const runStore = createRunStore(client);
  runStore.setState({ run });
  const told: string[] = [];
  const attempt = async (deed: () => Promise<unknown>): Promise<void> => {
    await deed().catch((error: Error) => told.push(error.message));
  };
  return {
    store: createLibraryStore({
      placeChosen: () => ({}),
      client,
      run: runStore,
      attempt,
      clearSelection: () => undefined,
    }),
    runStore,
    told,
  };
}

test('all words must be found, wherever they stand', () => {
  const sessions = [session('a', { tags: ['fast'] }), session('b', { levels: ['four-bit'], status: 'crashed' })];
  const found = (text: string) => searchSessions(sessions, text).map(({ name }) => name);
  expect(found('')).toEqual(['a', 'b']);
  expect(found('FAST cpu')).toEqual(['a']);
  expect(found('four crashed')).toEqual(['b']);
  expect(found('fast four')).toEqual([]);
});

test('it asks again when the library changed, once for many changes', async () => {
  let asked = 0;
  let answer = (): void => undefined;
  const library = (): Promise<Library> => {
    asked += 1;
    return new Promise((resolve) => {
      answer = () => resolve(empty);
    });
  };
  const { store, runStore } = createStore({ library });
  store.start();
  for (const libraryChanges of [1, 2, 3]) runStore.setState({ run: { ...noRun, libraryChanges } });
  expect(asked).toBe(1);
  answer();
  await until(() => expect(asked).toBe(2));
  answer();
  await until(() => expect(store.getState().library).toEqual(empty));
  expect(asked).toBe(2);
});

test('what was thrown away can be taken back until it is', async () => {
  const restored: string[] = [];
  const { store } = createStore({
    trashSession: async () => 'in trash',
    restoreSession: async ({ id }) => {
      restored.push(id);
      return 'a';
    },
  });
  await store.throwAway(session('a'));
  expect(store.getState().thrownAway).toEqual({ id: 'in trash', name: 'a' });
  await store.restore('in trash');
  expect(store.getState().thrownAway).toBeUndefined();
  expect(restored).toEqual(['in trash']);
});

test('given files are sent byte for byte, and the last one is opened unless a sweep runs', async () => {
  const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7919) % 256);
  const file = { name: 'a.fmqa', size: bytes.length, arrayBuffer: async () => bytes.buffer };
  for (const status of ['idle', 'running'] as const) {
    const sent: string[] = [];
    const opened: string[] = [];
    const { store } = createStore(
      {
        importSession: async ({ base64 }) => {
          sent.push(base64);
          return session('a');
        },
        openSession: async ({ id }) => {
          opened.push(id);
          return { id, name: id, file: id };
        },
      },
      { ...noRun, status },
    );
    await store.take([file]);
    expect(sent).toEqual([Buffer.from(bytes).toString('base64')]);
    expect(opened).toEqual(status === 'idle' ? ['a'] : []);
  }
});

test('a file that is too large is refused before it is read', async () => {
  const { store, told } = createStore({});
  const arrayBuffer = vi.fn();
  await store.take([{ name: 'a.fmqa', size: 2 ** 31, arrayBuffer }]);
  expect(told).toEqual(['a.fmqa is larger than 64 MiB, the most a session may take']);
  expect(arrayBuffer).not.toHaveBeenCalled();
});

test('baselines keep their colours; the first free one is given; there are no more than colours', () => {
  const view = createViewStore();
  for (let i = 0; i < mostBaselines + 2; i += 1) view.toggleBaseline(`s${i}`);
  expect(view.getState().baselines.map(({ colour }) => colour)).toEqual([0, 1, 2, 3, 4, 5]);
  view.toggleBaseline('s2');
  view.toggleBaseline('other');
  expect(view.getState().baselines.at(-1)).toEqual({ id: 'other', colour: 2 });
});
