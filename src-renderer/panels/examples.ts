/** Sessions that were measured on other machines and come with the app, to be looked at before anything is measured here. */
import type { App } from '../store/app.ts';

interface Example {
  readonly label: string;
  readonly fileName: string;
  /** That shows what it is about. */
  readonly chart: string;
  readonly load: () => Promise<{ default: string }>;
}

export const examples: readonly Example[] = [
  {
    label: 'Levels',
    fileName: 'levels-h100.fmqa',
    chart: 'levels',
    load: () => import('./examples/levels-h100.fmqa?raw'),
  },
  {
    label: 'Cache formats',
    fileName: 'kv-dtype-h100.fmqa',
    chart: 'levels',
    load: () => import('./examples/kv-dtype-h100.fmqa?raw'),
  },
  {
    label: 'Contexts up to 128k',
    fileName: 'scaling-h100.fmqa',
    chart: 'scaling',
    load: () => import('./examples/scaling-h100.fmqa?raw'),
  },
  {
    label: 'Roofline',
    fileName: 'roofline-h100.fmqa',
    chart: 'roofline',
    load: () => import('./examples/roofline-h100.fmqa?raw'),
  },
  {
    label: 'Until memory is full',
    fileName: 'capacity-h100.fmqa',
    chart: 'levels',
    load: () => import('./examples/capacity-h100.fmqa?raw'),
  },
];

/** Puts the example into the library, and shows it. */
export async function openExample(app: App, { fileName, chart, load }: Example): Promise<void> {
  const bytes = new TextEncoder().encode((await load()).default);
  await app.library.take([{ name: fileName, size: bytes.length, arrayBuffer: async () => bytes.buffer }]);
  app.view.setState({ chart });
}
