/**
 * A table of as many rows as there are: only those in view exist. One Tab stop for the rows, walked with the arrow keys,
 * and one for the heads, which sort; columns can be chosen, and what is shown can be copied.
 */
import { ActionIcon, Checkbox, Menu, Popover, Text, Tooltip } from '@mantine/core';
import { IconChevronDown, IconChevronUp, IconColumns3, IconCopy } from '@tabler/icons-react';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, memo, type ReactNode, useEffect, useMemo, useRef, useState } from 'react';
import { csvOfTable, markdownOfTable, type ShownColumn } from '../series/table.ts';
import classes from './data-grid.module.css';
import { useApp, useView } from './use-app.ts';

export interface Sort {
  readonly column: string;
  readonly descending: boolean;
}

interface DataGridProps<Row> {
  /** Of the table: its chosen columns are remembered under it. */
  readonly id: string;
  readonly label: string;
  readonly rows: readonly Row[];
  /** All there are. */
  readonly columns: readonly ShownColumn<Row>[];
  /** Ids of those shown unless the user chose others. */
  readonly usual: readonly string[];
  readonly sort: Sort | undefined;
  readonly onSort: (sort: Sort | undefined) => void;
  readonly keyOf: (row: Row) => string;
  /** Id of the point that a row is about. */
  readonly pointOf: (row: Row) => string;
  readonly cell: (row: Row, column: ShownColumn<Row>) => ReactNode;
  readonly outcomeOf?: (row: Row) => string;
  /** Words in place of rows. */
  readonly empty: string;
}

const rowHeight = 28;
const headHeight = 30;
const gridId = 'points';
const steps: Readonly<Record<string, number>> = {
  ArrowDown: 1,
  ArrowUp: -1,
  PageDown: 10,
  PageUp: -10,
  Home: -1e9,
  End: 1e9,
};

export const focusTable = (): void => document.getElementById(gridId)?.focus();

export function DataGrid<Row>(props: DataGridProps<Row>) {
  const { id, label, rows, columns, usual, sort, onSort, keyOf, pointOf, cell, outcomeOf, empty } = props;
  const { view } = useApp();
  const selected = useView((state) => state.selected);
  const chosen = useView((state) => state.columns[id]) ?? usual;
  const shown = useMemo(() => {
    // The usual ones in their order, then what else was chosen.
    const place = (column: ShownColumn<Row>): number =>
      (usual.indexOf(column.id) + usual.length + 1) % (usual.length + 1);
    return columns.filter(({ id: column }) => chosen.includes(column)).sort((a, b) => place(a) - place(b));
  }, [columns, chosen, usual]);
  const template = shown.map(({ pixels }) => `${pixels}px`).join(' ');
  const width = shown.reduce((sum, { pixels }) => sum + pixels, 0);
  const scroll = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => rowHeight,
    overscan: 8,
    scrollPaddingStart: headHeight,
  });
  const visible = virtual.getVirtualItems();

  // Wherever a point was selected, its row comes into view.
  const active = selected.at(-1);
  const activeIndex = useMemo(() => rows.findIndex((row) => pointOf(row) === active), [rows, pointOf, active]);
  const { scrollToIndex } = virtual;
  useEffect(() => {
    if (activeIndex >= 0) scrollToIndex(activeIndex);
  }, [activeIndex, scrollToIndex]);

  const walk = (event: KeyboardEvent): void => {
    const by = steps[event.key];
    if (event.target !== event.currentTarget || by === undefined || rows.length === 0) return;
    event.preventDefault();
    const next = Math.min(rows.length - 1, Math.max(0, activeIndex === -1 ? 0 : activeIndex + by));
    view.select(pointOf(rows[next]), event.shiftKey, false);
  };
  const rowId = (row: Row): string => `row-${keyOf(row).replaceAll(' ', '-')}`;

  return (
    <div className={classes.frame}>
      {/* biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised */}
      <div
        id={gridId}
        ref={scroll}
        className={classes.scroll}
        role="grid"
        aria-label={label}
        aria-rowcount={rows.length + 1}
        aria-colcount={shown.length}
        aria-multiselectable="true"
        aria-activedescendant={
          visible.some(({ index }) => index === activeIndex) ? rowId(rows[activeIndex]) : undefined
        }
        tabIndex={0}
        onKeyDown={walk}
      >
        <div style={{ width, height: virtual.getTotalSize() + headHeight }} role="presentation">
          <Head columns={shown} template={template} sort={sort} onSort={onSort} />
          {visible.map(({ index, start }) => {
            const row = rows[index];
            return (
              // biome-ignore lint/a11y/useFocusableInteractive: the grid holds the focus and moves the selection
              // biome-ignore lint/a11y/useKeyWithClickEvents: as above
              // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
              <div
                key={keyOf(row)}
                id={rowId(row)}
                role="row"
                aria-rowindex={index + 2}
                aria-selected={selected.includes(pointOf(row))}
                className={classes.row}
                data-outcome={outcomeOf?.(row)}
                style={{ gridTemplateColumns: template, transform: `translateY(${start + headHeight}px)` }}
                onClick={(event) => view.select(pointOf(row), event.shiftKey || event.ctrlKey || event.metaKey, false)}
              >
                {shown.map((column) => (
                  // biome-ignore lint/a11y/useFocusableInteractive: as above
                  // biome-ignore lint/a11y/useSemanticElements: as above
                  <div key={column.id} role="gridcell" className={column.isFigure ? classes.figure : undefined}>
                    {cell(row, column)}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
        {rows.length === 0 && (
          <Text size="sm" c="var(--app-quiet)" className={classes.empty}>
            {empty}
          </Text>
        )}
      </div>
      <div className={classes.focus} />
      <div
        className={classes.rail}
        role="toolbar"
        aria-label={`Table of ${label.toLowerCase()}`}
        aria-orientation="vertical"
      >
        <ColumnChoice id={id} columns={columns} chosen={chosen} />
        <CopyMenu rows={rows} columns={shown} />
      </div>
    </div>
  );
}

interface HeadProps<Row> {
  readonly columns: readonly ShownColumn<Row>[];
  readonly template: string;
  readonly sort: Sort | undefined;
  readonly onSort: (sort: Sort | undefined) => void;
}

/** First a click sorts upwards, then downwards, then no more. */
const sortAfter = (sort: Sort | undefined, column: string): Sort | undefined => {
  if (sort?.column !== column) return { column, descending: false };
  return sort.descending ? undefined : { column, descending: true };
};

const Head = memo(function Head<Row>({ columns, template, sort, onSort }: HeadProps<Row>) {
  const [reached, setReached] = useState(0);
  const walk = (event: KeyboardEvent): void => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const heads = event.currentTarget.querySelectorAll('button');
    heads[Math.min(heads.length - 1, Math.max(0, reached + by))]?.focus();
  };
  return (
    // biome-ignore lint/a11y/useFocusableInteractive: its buttons take the focus
    // biome-ignore lint/a11y/useSemanticElements: a real table cannot be virtualised
    <div
      className={classes.head}
      role="row"
      aria-rowindex={1}
      style={{ gridTemplateColumns: template }}
      onKeyDown={walk}
    >
      {columns.map(({ id, label, title, isFigure }, i) => {
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
            <button
              type="button"
              title={title === label ? undefined : title}
              tabIndex={i === Math.min(reached, columns.length - 1) ? 0 : -1}
              onFocus={() => setReached(i)}
              onClick={() => onSort(sortAfter(sort, id))}
            >
              {label}
              {isSorted && (sort.descending ? <IconChevronDown size={12} /> : <IconChevronUp size={12} />)}
            </button>
          </div>
        );
      })}
    </div>
  );
}) as <Row>(props: HeadProps<Row>) => ReactNode;

interface ColumnChoiceProps<Row> {
  readonly id: string;
  readonly columns: readonly ShownColumn<Row>[];
  readonly chosen: readonly string[];
}

function ColumnChoice<Row>({ id, columns, chosen }: ColumnChoiceProps<Row>) {
  const { view } = useApp();
  const [isOpen, setOpen] = useState(false);
  const groups = [...new Set(columns.map(({ group }) => group))];
  const toggle = (column: string): void => {
    const next = chosen.includes(column) ? chosen.filter((other) => other !== column) : [...chosen, column];
    if (next.length > 0) view.setColumns(id, next);
  };
  return (
    <Popover position="left-end" width={300} shadow="md" trapFocus onChange={setOpen}>
      <Popover.Target>
        <Tooltip label="Columns" position="left" openDelay={400} disabled={isOpen}>
          <ActionIcon variant="subtle" color="gray" size="sm" aria-label="Choose columns">
            <IconColumns3 size={16} />
          </ActionIcon>
        </Tooltip>
      </Popover.Target>
      <Popover.Dropdown className={classes.choice} aria-label="Columns of the table">
        <div className={classes.choices}>
          {groups.map((group) => (
            <fieldset key={group}>
              <legend>{group}</legend>
              {columns
                .filter((column) => column.group === group)
                .map((column) => (
                  <Checkbox
                    key={column.id}
                    size="xs"
                    label={column.title}
                    checked={chosen.includes(column.id)}
                    onChange={() => toggle(column.id)}
                  />
                ))}
            </fieldset>
          ))}
        </div>
        <button type="button" className={classes.usual} onClick={() => view.setColumns(id, undefined)}>
          Show the usual ones
        </button>
      </Popover.Dropdown>
    </Popover>
  );
}

interface CopyMenuProps<Row> {
  readonly rows: readonly Row[];
  readonly columns: readonly ShownColumn<Row>[];
}

function CopyMenu<Row>({ rows, columns }: CopyMenuProps<Row>) {
  const app = useApp();
  const [isOpen, setOpen] = useState(false);
  const copy = (text: string): void => void app.attempt(() => navigator.clipboard.writeText(text));
  return (
    <Menu position="left-start" withinPortal disabled={rows.length === 0} onChange={setOpen}>
      <Menu.Target>
        <Tooltip label="Copy" position="left" openDelay={400} disabled={isOpen}>
          <ActionIcon variant="subtle" color="gray" size="sm" aria-label="Copy the table" disabled={rows.length === 0}>
            <IconCopy size={16} />
          </ActionIcon>
        </Tooltip>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>Copy {rows.length === 1 ? 'the row' : `the ${rows.length} rows`} as shown</Menu.Label>
        <Menu.Item onClick={() => copy(csvOfTable(rows, columns))}>CSV, raw numbers</Menu.Item>
        <Menu.Item onClick={() => copy(markdownOfTable(rows, columns))}>Markdown, with units</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
