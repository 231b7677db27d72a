/** The twin of the compare chart: every point against every baseline as a row. Only the rows in view exist. */
import { Text } from '@mantine/core';
import { IconChevronDown, IconChevronUp } from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, useRef } from 'react';
import { GlyphSwatch, ringOf, Swatch } from '../charts/mark.tsx';
import type { ComparedPoint } from '../series/comparison.ts';
import { markOf } from '../series/marks.ts';
import own from './comparison.module.css';
import { comparisonColumns as columns } from './comparison-columns.ts';
import classes from './point-table.module.css';
import { useApp, useLevelNames, useView } from './use-app.ts';
import { useCompared } from './use-compared.ts';

const rowHeight = 28;
const headHeight = 30;
const template = columns.map(({ pixels }) => `${pixels}px`).join(' ');
const totalWidth = columns.reduce((sum, { pixels }) => sum + pixels, 0);

export function ComparisonTable() {
  const app = useApp();
  const { shown, all } = useCompared();
  const selected = useView((view) => view.selected);
  const levels = useLevelNames();
  const scroll = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: shown.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => rowHeight,
    overscan: 8,
    scrollPaddingStart: headHeight,
  });
  const move = (event: KeyboardEvent): void => {
    const steps: Record<string, number> = {
      ArrowDown: 1,
      ArrowUp: -1,
      PageDown: 10,
      PageUp: -10,
      Home: -1e9,
      End: 1e9,
    };
    const by = steps[event.key];
    if (by === undefined || shown.length === 0) return;
    event.preventDefault();
    const at = shown.findIndex(({ id }) => id === selected.at(-1));
    const next = Math.min(shown.length - 1, Math.max(0, at === -1 ? 0 : at + by));
    app.view.select(shown[next].id);
    virtual.scrollToIndex(next);
  };
  return (
    <div className={classes.frame}>
      {/* biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised */}
      <div
        id="points"
        ref={scroll}
        className={classes.scroll}
        role="grid"
        aria-label="Comparison"
        aria-rowcount={shown.length + 1}
        aria-colcount={columns.length}
        aria-multiselectable="true"
        tabIndex={0}
        onKeyDown={move}
      >
        <div style={{ width: totalWidth, height: virtual.getTotalSize() + headHeight }} role="presentation">
          <Head />
          {virtual.getVirtualItems().map(({ index, start }) => (
            <Row
              key={shown[index].key}
              point={shown[index]}
              index={index}
              top={start}
              levels={levels}
              isSelected={selected.includes(shown[index].id)}
            />
          ))}
        </div>
        {shown.length === 0 && (
          <Text size="sm" c="var(--app-quiet)" className={classes.empty}>
            {all.length === 0
              ? 'Each point that the current session shares with a baseline becomes a row here, with its verdict.'
              : 'No point has this verdict.'}
          </Text>
        )}
      </div>
    </div>
  );
}

function Head() {
  const app = useApp();
  const sort = useView((view) => view.comparisonSort);
  const sortBy = (column: string): void => {
    const isSame = sort?.column === column;
    app.view.setState({
      comparisonSort: isSame && sort.descending ? undefined : { column, descending: isSame },
    });
  };
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: the grid holds the focus; its heads are buttons
    // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
    <div className={classes.head} role="row" aria-rowindex={1} style={{ gridTemplateColumns: template }}>
      {columns.map(({ id, label, isFigure }) => {
        const isSorted = sort?.column === id;
        return (
          // biome-ignore lint/a11y/useFocusableInteractive: as above
          // biome-ignore lint/a11y/useSemanticElements: as above
          <div
            key={id}
            role="columnheader"
            aria-sort={isSorted ? (sort.descending ? 'descending' : 'ascending') : 'none'}
            className={isFigure ? classes.figure : undefined}
          >
            <button type="button" tabIndex={-1} onClick={() => sortBy(id)}>
              {label}
              {isSorted && (sort.descending ? <IconChevronDown size={12} /> : <IconChevronUp size={12} />)}
            </button>
          </div>
        );
      })}
    </div>
  );
}

interface RowProps {
  readonly point: ComparedPoint;
  readonly index: number;
  readonly top: number;
  readonly levels: readonly string[];
  readonly isSelected: boolean;
}

function Row({ point, index, top, levels, isSelected }: RowProps) {
  const app = useApp();
  const { config, verdict, isRegression } = point;
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: the grid holds the focus and moves the selection
    // biome-ignore lint/a11y/useKeyWithClickEvents: as above
    // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
    <div
      role="row"
      aria-rowindex={index + 2}
      aria-selected={isSelected}
      className={classes.row}
      style={{ gridTemplateColumns: template, transform: `translateY(${top + headHeight}px)` }}
      onClick={(event) => app.view.select(point.id, event.shiftKey || event.ctrlKey || event.metaKey)}
    >
      {columns.map(({ id, isFigure, show }) => (
        // biome-ignore lint/a11y/useFocusableInteractive: as above
        // biome-ignore lint/a11y/useSemanticElements: as above
        <div key={id} role="gridcell" className={isFigure ? classes.figure : undefined}>
          {id === 'level' && <Swatch mark={markOf(config.level, levels)} hollow={config.phase === 'prefill'} />}
          {id === 'baseline' && <GlyphSwatch glyph={ringOf(point.baseline.colour)} />}
          <span
            className={id === 'verdict' ? own.verdict : undefined}
            data-verdict={verdict}
            title={id === 'verdict' && isRegression ? 'a regression: slower, larger, less exact or lost' : show(point)}
          >
            {show(point)}
            {id === 'verdict' && isRegression && ' !'}
          </span>
        </div>
      ))}
    </div>
  );
}
