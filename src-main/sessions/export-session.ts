/** A recorded session in every format that others read. */
import { type Prices, withPrices } from '../contract/devices.ts';
import type { ExportFormat } from '../contract/session.ts';
import { exportPoints } from './export.ts';
import { toParquet } from './export-parquet.ts';
import type { Session } from './recovery.ts';
import { toReport } from './report.ts';

/**
 * Text, or bytes where the format is no text.
 * @param levels in the order of the catalogue: a level looks the same in the report as in the window
 * @param prices for tokens per unit of money; they are in no session
 */
export function exportSession(
  session: Session,
  format: ExportFormat,
  levels: readonly string[] = [],
  prices: Prices = {},
): string | Uint8Array {
  const { environment } = session.header;
  const content = { environment, points: withPrices([...session.points.values()], prices, environment.cpu) };
  switch (format) {
    case 'html':
      return toReport({ ...content, name: session.name, levels });
    case 'parquet':
      return toParquet(content.points);
    default:
      return exportPoints(content, format);
  }
}
