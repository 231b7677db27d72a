/** What can be done with a session, as items of a menu: the same in the library and at the top of the window. */
import { Menu } from '@mantine/core';
import { type ExportFormat, exportFormats } from '../../src-main/contract/session.ts';
import { download } from '../charts/export.ts';
import type { App } from '../store/app.ts';
import { useApp } from './use-app.ts';

export const formatNames: Readonly<Record<ExportFormat, string>> = {
  csv: 'CSV',
  json: 'JSON',
  md: 'Markdown',
  html: 'HTML report, opens offline',
  parquet: 'Parquet',
};

export const saveSession = (app: App, id: string, format: ExportFormat | 'fmqa'): Promise<void> =>
  app.attempt(async () => {
    const { fileName, mediaType, base64 } = await app.library.export(id, format);
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    download(fileName, new Blob([bytes], { type: mediaType }));
  });

export function SaveItems({ id }: { readonly id: string }) {
  const app = useApp();
  return (
    <>
      <Menu.Item onClick={() => void saveSession(app, id, 'fmqa')}>Save as…</Menu.Item>
      <Menu.Divider />
      <Menu.Label>Export its points</Menu.Label>
      {exportFormats.map((format) => (
        <Menu.Item key={format} onClick={() => void saveSession(app, id, format)}>
          {formatNames[format]}
        </Menu.Item>
      ))}
    </>
  );
}
