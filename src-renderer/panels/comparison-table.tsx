/** The twin of the compare chart: every point against every baseline as a row. */
import { useMemo } from 'react';
import { GlyphSwatch, ringOf, Swatch } from '../charts/mark.tsx';
import type { ComparedPoint } from '../series/comparison.ts';
import { markOf } from '../series/marks.ts';
import type { ShownColumn } from '../series/table.ts';
import own from './comparison.module.css';
import { comparisonColumns, usualComparisonColumns } from './comparison-columns.ts';
import { DataGrid } from './data-grid.tsx';
import { useApp, useKind, useLevelNames, useView } from './use-app.ts';
import { useCompared } from './use-compared.ts';

export function ComparisonTable() {
  const { view } = useApp();
  const { shown, all } = useCompared();
  const sort = useView((state) => state.comparisonSort);
  const levels = useLevelNames();
  const kind = useKind();
  const usual = useMemo(() => usualComparisonColumns(kind), [kind]);
  return (
    <DataGrid
      id="comparison"
      label="Comparison"
      rows={shown}
      columns={comparisonColumns}
      usual={usual}
      sort={sort}
      onSort={(next) => view.setState({ comparisonSort: next })}
      keyOf={({ key }) => key}
      pointOf={pointIdOf}
      cell={(point, column) => <ComparisonCell point={point} column={column} levels={levels} />}
      empty={
        all.length === 0
          ? 'Each point that the current session shares with a baseline becomes a row here, with its verdict.'
          : 'No point has this verdict.'
      }
    />
  );
}

const pointIdOf = ({ id }: ComparedPoint): string => id;

interface ComparisonCellProps {
  readonly point: ComparedPoint;
  readonly column: ShownColumn<ComparedPoint>;
  readonly levels: readonly string[];
}

function ComparisonCell({ point, column: { id, show }, levels }: ComparisonCellProps) {
  const { config, baseline, verdict, isRegression } = point;
  const text = show(point);
  if (id === 'verdict')
    return (
      <span
        className={own.verdict}
        data-verdict={verdict}
        title={isRegression ? 'a regression: slower, larger, less exact or lost' : text}
      >
        {text}
        {isRegression && ' !'}
      </span>
    );
  return (
    <>
      {id === 'level' && <Swatch mark={markOf(config.level, levels)} hollow={config.phase === 'prefill'} />}
      {id === 'baseline' && <GlyphSwatch glyph={ringOf(baseline.colour)} />}
      <span title={text}>{text}</span>
    </>
  );
}
