import { formatMetric } from '../../src-main/contract/format.ts';
import type { Metric, Point } from '../../src-main/contract/metrics.ts';
import { type LevelMark, markOf } from '../series/marks.ts';
import { Swatch } from './mark.tsx';
import classes from './tooltip.module.css';

interface PointTooltipProps {
  readonly point: Point;
  readonly metrics: readonly Metric[];
  readonly levels: readonly string[];
  /** What the figures beside it are about, if not this point alone. */
  readonly note?: string;
}

/** What a mark says when it is pointed at. */
export function PointTooltip({ point, metrics, levels, note }: PointTooltipProps) {
  const { level, phase, model, hiddenDim, heads, seqLen, batch } = point.config;
  const mark: LevelMark = markOf(level, levels);
  return (
    <div className={classes.box}>
      <div className={classes.head}>
        <Swatch mark={mark} hollow={phase === 'prefill'} />
        {level} · {phase}
      </div>
      {note && <div className={classes.note}>{note}</div>}
      <dl className={classes.rows}>
        {metrics.map((metric) => {
          const value = metric.read(point);
          return value === undefined
            ? null
            : [<dt key={metric.label}>{metric.label}</dt>, <dd key={metric.id}>{formatMetric(value, metric.unit)}</dd>];
        })}
        {point.error && [<dt key="grade">grade</dt>, <dd key="value">{point.error.grade}</dd>]}
        <dt>{model === undefined ? 'layer' : 'model'}</dt>
        <dd>{model ?? `d ${hiddenDim}, ${heads} heads`}</dd>
        <dt>tokens, batch</dt>
        <dd>
          {formatMetric(seqLen, 'count')} x {batch}
        </dd>
      </dl>
    </div>
  );
}
