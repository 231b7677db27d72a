/** Devices below each other: their measured ceilings in words, and a bar for each figure. */
import { formatMetric } from '../../src-main/contract/format.ts';
import { type DeviceRow, type Devices, deviceMetrics } from '../series/devices.ts';
import { metricOf } from '../series/metric.ts';

interface DevicesChartProps {
  readonly data: Devices;
  readonly width: number;
  readonly height: number;
}

const headHeight = 46;
const rowHeight = 68;
const wordsShare = 0.34;
const gap = 18;
const character = 6.3;
const boldCharacter = 7.7;
const heads = [
  ['share of the', 'roofline'],
  ['tokens', 'per second'],
  ['tokens per', 'device-hour'],
  ['tokens per', 'unit of money'],
] as const;

export function DevicesChart({ data: { rows, shared }, width, height }: DevicesChartProps) {
  // Medians over other points each: figures stand, bars would compare them.
  const isComparable = rows.length < 2 || shared > 0;
  const left = Math.max(230, width * wordsShare);
  const column = (width - left) / deviceMetrics.length;
  const most = deviceMetrics.map((_, i) => rows.reduce((high, { medians }) => Math.max(high, medians[i] ?? 0), 0));
  return (
    <div style={{ width, height, overflowY: 'auto', overflowX: 'hidden' }}>
      <svg
        width={width}
        height={headHeight + rows.length * rowHeight}
        role="img"
        aria-label={`${rows.length} devices side by side`}
        fontSize={12}
        fill="var(--app-text)"
      >
        <text x={0} y={38} fill="var(--app-quiet)">
          device and its measured ceilings
        </text>
        {heads.map((head, i) =>
          head.map((line, at) => (
            <text key={`${head.join()} ${line}`} x={left + i * column} y={23 + 15 * at} fill="var(--app-quiet)">
              {line}
            </text>
          )),
        )}
        {rows.map((row, i) => (
          <g key={row.key} transform={`translate(0 ${headHeight + i * rowHeight})`}>
            <line x1={0} x2={width} y1={0} y2={0} stroke="var(--app-line)" />
            <Words row={row} width={left - gap} />
            {row.medians.map((value, at) => {
              const id = deviceMetrics[at] as (typeof deviceMetrics)[number];
              const x = left + at * column;
              const share = value === undefined ? 0 : at === 0 ? value : value / (most[at] || 1);
              return (
                <g key={id} transform={`translate(${x} 0)`}>
                  {(at === 0 || isComparable) && (
                    <>
                      <rect x={0} y={34} width={column - gap} height={10} fill="var(--chart-grid)" />
                      <rect
                        x={0}
                        y={34}
                        width={(column - gap) * Math.min(1, share)}
                        height={10}
                        fill={row.colour ?? 'var(--app-accent)'}
                      />
                    </>
                  )}
                  <text x={0} y={26} fontWeight={600}>
                    {value === undefined ? missing(at, row) : figure(id, value)}
                  </text>
                </g>
              );
            })}
          </g>
        ))}
      </svg>
    </div>
  );
}

const figure = (id: string, value: number): string =>
  formatMetric(value, metricOf(id).unit).replace(/ tokens(\/s)?$/, '');

const missing = (at: number, { pricePerHour }: DeviceRow): string =>
  at === 3 && pricePerHour === undefined ? 'no price' : '–';

function Words({ row, width }: { readonly row: DeviceRow; readonly width: number }) {
  const { name, session, hosts, points, fmaFlopsPerSecond: fma, readBytesPerSecond: read } = row;
  const where = hosts.length === 0 ? session : `${session}, ${hosts.join(', ')}`;
  const ceilings =
    fma && read
      ? `${formatMetric(fma[1], 'FLOP/s')} · ${formatMetric(read[1], 'bytes/s')} read`
      : 'no ceilings were measured';
  return (
    <>
      <text x={0} y={20} fontWeight={600}>
        <title>{name}</title>
        {cut(name, width, boldCharacter)}
      </text>
      <text x={0} y={37} fill="var(--app-quiet)">
        {cut(ceilings, width)}
      </text>
      <text x={0} y={54} fill="var(--app-quiet)">
        {cut(`${points} points · ${where}`, width)}
      </text>
    </>
  );
}

const cut = (text: string, width: number, each = character): string =>
  text.length * each <= width ? text : `${text.slice(0, Math.max(1, Math.floor(width / each) - 1))}…`;
