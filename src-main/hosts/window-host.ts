/** All that a host of windows needs: the calls, the current sweep, the library. Web and Electron carry it, each in its way. */
import { join } from 'node:path';
import type { AppApi } from '../contract/calls.ts';
import type { RunSession } from '../contract/run-state.ts';
import { createAppCalls } from './app-calls.ts';
import type { Profiler } from './compose.ts';
import { PlaceBook } from './place-book.ts';
import { RunHub } from './run-hub.ts';
import { SessionLibrary } from './session-library.ts';
import { SweepShelf } from './sweep-shelf.ts';

export interface WindowHost {
  readonly api: AppApi;
  readonly hub: RunHub;
  /**
   * Shows the session at a path: for hosts that get paths from the user or the system, never from a window.
   * @throws InputError for a file that is none, or while a sweep runs
   */
  openPath(path: string): Promise<RunSession>;
  /** Ends a sweep that runs and keeps what it measured. The profiler stays open. */
  close(): Promise<void>;
}

/** What windows need of a profiler. */
export type WindowProfiler = Pick<
  Profiler,
  | 'levels'
  | 'devices'
  | 'vitals'
  | 'preview'
  | 'models'
  | 'plan'
  | 'run'
  | 'append'
  | 'compare'
  | 'exportSession'
  | 'agents'
  | 'knownAgents'
  | 'watchFleet'
>;

export interface WindowHostOptions {
  readonly profiler: WindowProfiler;
  /** Sessions are saved here, and make up the library. */
  readonly folder: string;
  /** Of the fleet that windows may see and use, without a password. */
  readonly queue?: string | undefined;
}

export function createWindowHost({ profiler, folder, queue }: WindowHostOptions): WindowHost {
  const hub = new RunHub({ profiler, folder });
  const library = new SessionLibrary({ profiler, folder, onChange: () => hub.tellLibraryChanged() });
  const shelf = new SweepShelf(join(folder, 'sweeps.json'));
  const places = new PlaceBook(profiler, queue);
  const api = createAppCalls(profiler, hub, library, shelf, places);
  return {
    api,
    hub,
    openPath: async (path) => api.openSession({ id: await library.admit(path) }),
    close: async () => {
      places.close();
      await hub.close();
    },
  };
}
