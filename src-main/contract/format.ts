/** Numbers as people read them: units and three significant digits. Tables, tooltips and documents share it. */
import type { Metric } from './metrics.ts';

const binary = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const decimal = ['', 'k', 'M', 'G', 'T', 'P'];

/** Three significant digits, no exponent between 1e-4 and 1e6. */
export function formatNumber(value: number): string {
  const size = Math.abs(value);
  if (value === 0 || !Number.isFinite(value)) return String(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return size >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let step = 0;
  // 999.5 would print as a rounded 1000: one step too small.
  while (Math.abs(value) >= base - 0.5 && step < units.length - 1) {
    value /= base;
    step += 1;
  }
  return `${formatNumber(value)} ${units[step]}`;
}

export const formatBytes = (bytes: number): string => scaled(bytes, 1024, binary);

export function formatSeconds(seconds: number): string {
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds >= 1) return `${formatNumber(seconds)} s`;
  return seconds >= 1e-3 ? `${formatNumber(seconds * 1e3)} ms` : `${formatNumber(seconds * 1e6)} µs`;
}

/** One decimal; two where 99 and 100 are far apart; none where nobody reads them, and none for all of it. */
function percentFigure(value: number): string {
  const decimals = Math.abs(value) >= 1000 || value === 100 ? 0 : value >= 99 && value < 100 ? 2 : 1;
  return value.toFixed(decimals).replace(/^-(0\.0+)$/, '$1');
}

export function formatMetric(value: number, unit: Metric['unit']): string {
  switch (unit) {
    case 'bytes':
      return formatBytes(value);
    case 's':
      return formatSeconds(value);
    case 'x':
      return `${formatNumber(value)}x`;
    case '%':
      return `${percentFigure(value)} %`;
    case 'share':
      return `${percentFigure(100 * value)} %`;
    case 'bytes/s':
      return `${scaled(value, 1000, decimal)}B/s`; // as data sheets give bandwidth
    case 'FLOP/s':
      return `${scaled(value, 1000, decimal)}FLOP/s`;
    case 'tokens/s':
      return value >= 1e4 ? `${scaled(value, 1000, decimal)} tokens/s` : `${formatNumber(value)} tokens/s`;
    case 'tokens':
      return `${scaled(value, 1000, decimal).trimEnd()} tokens`;
    case 'count':
      return value.toLocaleString('en-US', { maximumFractionDigits: 20 });
    case 'ratio':
      return formatNumber(value);
  }
}
