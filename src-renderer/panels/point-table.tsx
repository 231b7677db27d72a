/** Every point as a row: the twin of all charts. */
import { useMemo } from 'react';
import type { Point } from '../../src-main/contract/metrics.ts';
import { Swatch } from '../charts/mark.tsx';
import { markOf } from '../series/marks.ts';
import { type ShownColumn, sortRows } from '../series/table.ts';
import { DataGrid } from './data-grid.tsx';
import { pointColumns, usualColumns } from './point-columns.ts';
import { useApp, useKind, useLevelNames, useRun, useView } from './use-app.ts';
import { useTablePoints } from './use-points.ts';

const idOf = ({ id }: Point): string => id;

export function PointTable() {
  const { view } = useApp();
  const points = useTablePoints();
  const all = useRun((run) => run.points);
  const kind = useKind();
  const sort = useView((state) => state.sort);
  const levels = useLevelNames();
  const columns = useMemo(() => pointColumns(all), [all]);
  const usual = useMemo(() => usualColumns(kind), [kind]);
  const rows = useMemo(() => {
    const column = columns.find(({ id }) => id === sort?.column);
    return column ? sortRows(points, column, sort?.descending ?? false) : points;
  }, [points, columns, sort]);
  return (
    <DataGrid
      id="points"
      label="Points"
      rows={rows}
      columns={columns}
      usual={usual}
      sort={sort}
      onSort={(next) => view.setState({ sort: next })}
      keyOf={idOf}
      pointOf={idOf}
      outcomeOf={({ outcome }) => outcome}
      cell={(point, column: ShownColumn<Point>) => (
        <>
          {column.id === 'level' && (
            <Swatch mark={markOf(point.config.level, levels)} hollow={point.config.phase === 'prefill'} />
          )}
          <span>{column.show(point)}</span>
        </>
      )}
      empty={
        all.length === 0
          ? 'Each point of a sweep becomes a row here, measured, skipped or failed.'
          : 'No point passes the filter above the charts.'
      }
    />
  );
}
