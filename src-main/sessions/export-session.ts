/** A recorded session in every format that others read. */
import { type Prices, withPrices } from '../contract/devices.ts';
import type { ExportFormat } from '../contract/session.ts';
import { exportPoints } from './export.ts';
import type { Session } from './recovery.ts';

/**
 * Text, or bytes where the format is no text. What makes a report or a Parquet file is loaded by nobody else: it would be a
 * third of the time in which every command starts.
 * @param levels in the order of the catalogue: a level looks the same in the report as in the window
 * @param prices for tokens per unit of money; they are in no session
 */
export async function exportSession(
  session: Session,
  format: ExportFormat,
  levels: readonly string[] = [],
  prices: Prices = {},
): Promise<string | Uint8Array> {
  const { environment } = session.header;
  const content = { environment, points: withPrices([...session.points.values()], prices, environment.cpu) };
  switch (format) {
    case 'html': {
      const { toReport } = await import('./report.ts');
      return toReport({ ...content, name: session.name, levels, damagedLines: session.setAside });
    }
    case 'parquet': {
      const { toParquet } = await import('./export-parquet.ts');
      return toParquet(content.points);
    }
    default:
      return exportPoints(content, format);
  }
}
