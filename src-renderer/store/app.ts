/** Every store of the window, and the deeds that need more than one of them. */
import type { RunVerb } from '../../src-main/contract/run-state.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import type { Client } from '../client/client.ts';
import { createBaselinesStore } from './baselines.ts';
import { createCatalogueStore } from './catalogue.ts';
import { createDraftStore } from './draft.ts';
import { createLibraryStore } from './library.ts';
import { createNoticeStore } from './notices.ts';
import { createPlacesStore } from './places.ts';
import { createPlannerStore } from './planner.ts';
import { createPreviewStore } from './preview.ts';
import { createRunStore } from './run.ts';
import { createSamplesStore } from './samples.ts';
import { createSweepsStore } from './sweeps.ts';
import { createViewStore, type Memory } from './view.ts';
import { createVitalsStore } from './vitals.ts';

export type App = ReturnType<typeof createApp>;

export function createApp(client: Client, memory?: Memory) {
  const run = createRunStore(client);
  const draft = createDraftStore();
  const preview = createPreviewStore(client, draft);
  const view = createViewStore(memory);
  const samples = createSamplesStore(client);
  const catalogue = createCatalogueStore(client);
  const vitals = createVitalsStore(client, run);
  const notices = createNoticeStore();
  const sweeps = createSweepsStore(client, draft);

  /** A deed that fails is told, in the words of the host. */
  const attempt = async (deed: () => Promise<unknown>): Promise<void> => {
    try {
      await deed();
    } catch (error) {
      notices.add((error as Error).message);
    }
  };

  const places = createPlacesStore(client, attempt);
  const placeChosen = () => {
    const { chosen: place } = places.getState();
    return place === undefined ? {} : { place };
  };
  const library = createLibraryStore({ client, run, attempt, placeChosen, clearSelection: view.clearSelection });
  const baselines = createBaselinesStore(client, run, view);
  const planner = createPlannerStore(client, view, attempt);

  return {
    run,
    draft,
    preview,
    view,
    samples,
    catalogue,
    vitals,
    notices,
    sweeps,
    library,
    baselines,
    planner,
    places,
    attempt,
    /** Resolves when there is enough to paint a window that will not move when the rest arrives. */
    start: async (): Promise<void> => {
      run.connect();
      preview.start();
      library.start();
      baselines.start();
      void planner.start();
      void places.load();
      void catalogue.loadDevices();
      await Promise.all([catalogue.loadLevels(), run.known, attempt(sweeps.begin)]);
    },
    /** @param given instead of the one that is drafted */
    startRun: (given?: Sweep) =>
      attempt(async () => {
        const sweep = given ?? preview.getState().sweep;
        if (!sweep) return;
        view.clearSelection();
        await client.api.startRun({ sweep, ...placeChosen() });
      }),
    steer: (verb: RunVerb) => attempt(() => client.api[verb]({})),
  };
}
