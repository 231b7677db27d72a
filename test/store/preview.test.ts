/** What Run, Keep, Export and Copy act on is what the form says this moment, however long the host takes to price it. */
import { expect, test } from 'vitest';
import type { Client } from '../../src-renderer/client/client.ts';
import { createDraftStore } from '../../src-renderer/store/draft.ts';
import { createPreviewStore } from '../../src-renderer/store/preview.ts';

test('the sweep follows the draft at once, before any answer of the host', () => {
  const draft = createDraftStore();
  const neverAnswers = { api: { preview: () => new Promise(() => undefined) } } as unknown as Client;
  const preview = createPreviewStore(neverAnswers, draft);
  const stop = preview.start();
  expect(preview.getState().sweep?.name).toBe('quick look');
  draft.edit({ name: 'mine' });
  expect(preview.getState().sweep?.name).toBe('mine');
  draft.edit({ levels: [] });
  expect(preview.getState()).toMatchObject({ sweep: undefined, errors: { level: 'choose at least one level' } });
  stop();
});
