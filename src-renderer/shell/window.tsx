/** One window: the sweep on the left, charts in the centre, the inspector on the right, the table below. */
import { useEffect } from 'react';
import { isSampling } from '../../src-main/contract/run-state.ts';
import { Boundary } from '../panels/boundary.tsx';
import { ChartsPanel } from '../panels/charts-panel.tsx';
import { ComparisonTable } from '../panels/comparison-table.tsx';
import { Inspector } from '../panels/inspector.tsx';
import { LeftPanel } from '../panels/left-panel.tsx';
import { PlannerTable } from '../panels/planner-table.tsx';
import { PointTable } from '../panels/point-table.tsx';
import { useApp, useRun, useView } from '../panels/use-app.ts';
import { Banner } from './banner.tsx';
import { CommandPalette } from './command-palette.tsx';
import { Divider } from './divider.tsx';
import { FileDrop } from './file-drop.tsx';
import { KeyboardMap } from './keyboard-map.tsx';
import { Recovery } from './recovery.tsx';
import { useShortcuts } from './shortcuts.ts';
import { TopBar } from './top-bar.tsx';
import { useCommands } from './use-commands.ts';
import classes from './window.module.css';

export function Window() {
  const app = useApp();
  const { leftPixels, rightPixels, bottomPixels } = useView((view) => view.layout);
  const chart = useView((view) => view.chart);
  const commands = useCommands();
  useShortcuts(commands);
  useQuiet();
  return (
    <div
      className={classes.window}
      style={{
        // What the user made wide gives way first, so that a small window still has a chart.
        gridTemplateColumns: `minmax(240px, ${leftPixels}px) 1px minmax(380px, 1fr) 1px minmax(256px, ${rightPixels}px)`,
        gridTemplateRows: `48px minmax(360px, 1fr) 1px minmax(120px, ${bottomPixels}px)`,
      }}
    >
      <TopBar />
      <Banner />
      <FileDrop />
      <CommandPalette commands={commands} />
      <KeyboardMap commands={commands} />
      <div className={classes.left} data-pane="left">
        <Boundary of="the left column">
          <LeftPanel />
        </Boundary>
      </div>
      <Divider
        className={classes.leftDivider}
        label="Width of the sweep"
        value={leftPixels}
        range={[260, 480]}
        onChange={(pixels) => app.view.resize({ leftPixels: pixels })}
      />
      <main className={classes.centre} data-pane="centre" aria-label="Charts">
        <ChartsPanel />
      </main>
      <Divider
        className={classes.rightDivider}
        label="Width of the inspector"
        value={rightPixels}
        range={[280, 560]}
        isReversed
        onChange={(pixels) => app.view.resize({ rightPixels: pixels })}
      />
      <div className={classes.right} data-pane="right">
        <Boundary of="the inspector">
          <Inspector />
        </Boundary>
      </div>
      <Divider
        className={classes.bottomDivider}
        label="Height of the table"
        value={bottomPixels}
        range={[120, 480]}
        isHorizontal
        isReversed
        onChange={(pixels) => app.view.resize({ bottomPixels: pixels })}
      />
      <section className={classes.bottom} data-pane="bottom" aria-label="All points">
        <Boundary of="the table">
          {chart === 'compare' ? <ComparisonTable /> : chart === 'planner' ? <PlannerTable /> : <PointTable />}
        </Boundary>
        <Recovery />
      </section>
    </div>
  );
}

/** At the root, because menus and dialogs stand outside of the window's own element. */
function useQuiet(): void {
  const isQuiet = useRun(isSampling);
  useEffect(() => void document.documentElement.toggleAttribute('data-quiet', isQuiet), [isQuiet]);
}
