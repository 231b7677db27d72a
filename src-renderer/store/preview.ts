/** What the drafted sweep would cost, asked anew shortly after each change; and what is wrong with it, at its field. */
import { createStore } from 'zustand/vanilla';
import type { PreviewSummary } from '../../src-main/contract/calls.ts';
import type { Sweep } from '../../src-main/contract/sweep.ts';
import { CallError, type Client } from '../client/client.ts';
import { type createDraftStore, type DraftErrors, sweepOf } from './draft.ts';

/** Shorter than a pause in typing that feels like one. */
const settleMilliseconds = 150;

interface PreviewStore {
  /** What the draft says this moment; undefined while it has an error. */
  readonly sweep: Sweep | undefined;
  readonly errors: DraftErrors;
  /** Of the last draft without an error: it stays in view while a field is being typed. */
  readonly summary: PreviewSummary | undefined;
}

/** Where an error belongs that the host blames on no field of the form. */
export const wholeForm = 'sweep';

export function createPreviewStore(client: Client, draft: ReturnType<typeof createDraftStore>) {
  const store = createStore<PreviewStore>(() => ({ sweep: undefined, errors: {}, summary: undefined }));
  let timer: ReturnType<typeof setTimeout> | undefined;
  let latest = 0;

  async function ask(sweep: Sweep): Promise<void> {
    latest += 1;
    const mine = latest;
    try {
      const summary = await client.api.preview({ sweep });
      if (mine === latest) store.setState({ summary, errors: {} });
    } catch (error) {
      if (mine !== latest || !(error instanceof CallError)) return;
      store.setState({ sweep: undefined, errors: { [fieldOf(error.subject, sweep)]: error.message } });
    }
  }

  function update(): void {
    clearTimeout(timer);
    latest += 1; // an answer still on its way is to an older question
    const { sweep, errors } = sweepOf(draft.getState().draft);
    store.setState(sweep ? { sweep } : { sweep, errors }); // what the host blamed stays in view until it answers
    if (sweep) timer = setTimeout(() => void ask(sweep), settleMilliseconds);
  }

  const start = (): (() => void) => {
    update();
    return draft.subscribe(update);
  };
  return { ...store, start };
}

const fieldOf = (subject: string | undefined, sweep: Sweep): string =>
  subject !== undefined && (subject in sweep.axes || subject in (sweep.measuring ?? {})) ? subject : wholeForm;
