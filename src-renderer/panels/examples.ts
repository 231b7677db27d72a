/** Sessions that were measured on other machines and come with the app, to be looked at before anything is measured here. */
import type { App } from '../store/app.ts';

interface Example {
  readonly label: string;
  readonly fileName: string;
  readonly load: () => Promise<{ default: string }>;
}

export const examples: readonly Example[] = [
  {
    label: 'Levels',
    fileName: 'levels-h100.fmqa',
    load: () => import('./examples/levels-h100.fmqa?raw'),
  },
  {
    label: 'Cache formats',
    fileName: 'kv-dtype-h100.fmqa',
    load: () => import('./examples/kv-dtype-h100.fmqa?raw'),
  },
  {
    label: 'Contexts up to 128k',
    fileName: 'scaling-h100.fmqa',
    load: () => import('./examples/scaling-h100.fmqa?raw'),
  },
];

/** Puts the example into the library, and shows it. */
export async function openExample(app: App, { fileName, load }: Example): Promise<void> {
  const bytes = new TextEncoder().encode((await load()).default);
  await app.library.take([{ name: fileName, size: bytes.length, arrayBuffer: async () => bytes.buffer }]);
}
