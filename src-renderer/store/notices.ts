/** Sentences for the user that belong to no field: they stay until they are dismissed. */
import { createStore } from 'zustand/vanilla';

export interface Notice {
  readonly id: number;
  readonly text: string;
}

export function createNoticeStore() {
  const store = createStore<{ readonly notices: readonly Notice[] }>(() => ({ notices: [] }));
  let next = 1;
  return {
    ...store,
    add: (text: string) =>
      store.setState(({ notices }) =>
        notices.some((notice) => notice.text === text) ? {} : { notices: [...notices, { id: next++, text }] },
      ),
    dismiss: (id: number) =>
      store.setState(({ notices }) => ({ notices: notices.filter((notice) => notice.id !== id) })),
  };
}
