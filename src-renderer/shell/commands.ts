/** Everything the window can be told to do, once: the keys, the palette and the keyboard map all come from this list. */
import { isActive, type RunState } from '../../src-main/contract/run-state.ts';
import { exportFormats } from '../../src-main/contract/session.ts';
import { charts } from '../panels/chart-list.ts';
import { focusTable } from '../panels/data-grid.tsx';
import { examples, openExample } from '../panels/examples.ts';
import { focusFilter } from '../panels/filter-bar.tsx';
import { focusInspector } from '../panels/inspector.tsx';
import { formatNames, saveSession } from '../panels/session-items.tsx';
import { chooseSessionFile, showLibrary } from '../panels/sessions-panel.tsx';
import { focusWrong } from '../panels/sweep-preview.tsx';
import type { App } from '../store/app.ts';
import { commandOf } from '../store/command.ts';
import { openSessionMenu } from './session-menu.tsx';

export interface Command {
  readonly id: string;
  readonly group: 'Sweep' | 'Session' | 'Charts and table' | 'Window';
  readonly title: string;
  /** As `useHotkeys` reads them; the first is the one to tell. */
  readonly keys?: readonly string[];
  /** Elements that have their own use for these keys. */
  readonly notIn?: readonly string[];
  readonly isPossible?: (run: RunState) => boolean;
  readonly act: () => void;
}

const fields = ['INPUT', 'TEXTAREA', 'SELECT'];
/** The space bar presses what has the focus. */
const pressable = [...fields, 'BUTTON'];

const isRunning = ({ status }: RunState): boolean => status === 'running';
const isPaused = ({ status }: RunState): boolean => status === 'paused';
const isIdle = (run: RunState): boolean => !isActive(run);
const hasSession = ({ session }: RunState): boolean => session !== undefined;

export interface WindowDeeds {
  readonly switchTheme: () => void;
}

export function commandsOf(app: App, { switchTheme }: WindowDeeds): readonly Command[] {
  const { view } = app;
  const state = () => app.run.getState().run;
  const pauseOrContinue = (): void => {
    if (isRunning(state())) void app.steer('pause');
    else if (isPaused(state())) void app.steer('continue');
  };
  /** Of the session in view. */
  const withSession = (deed: (id: string) => void) => (): void => {
    const { session } = state();
    if (session) deed(session.id);
  };
  const show = (overlay: 'commands' | 'keys') => (): void =>
    view.setState((now) => ({ overlay: now.overlay === overlay ? undefined : overlay }));
  const copyCommand = (): void => {
    const { sweep } = app.preview.getState();
    if (sweep) void app.attempt(() => navigator.clipboard.writeText(commandOf(sweep)));
  };

  return [
    {
      id: 'run',
      group: 'Sweep',
      title: 'Run the sweep',
      keys: ['mod+Enter'],
      isPossible: isIdle,
      act: () => (app.preview.getState().sweep ? void app.startRun() : focusWrong(app)),
    },
    {
      id: 'pause',
      group: 'Sweep',
      title: 'Pause or continue',
      keys: ['space'],
      notIn: pressable,
      isPossible: (run) => isRunning(run) || isPaused(run),
      act: pauseOrContinue,
    },
    {
      id: 'stop',
      group: 'Sweep',
      title: 'Stop after the points at hand',
      isPossible: isActive,
      act: () => void app.steer('stop'),
    },
    {
      id: 'cancel',
      group: 'Sweep',
      title: 'Cancel: end now',
      isPossible: isActive,
      act: () => void app.steer('cancel'),
    },
    {
      id: 'undo',
      group: 'Sweep',
      title: 'Undo an edit of the sweep',
      keys: ['mod+Z'],
      isPossible: () => app.draft.getState().past.length > 0,
      act: app.draft.undo,
    },
    {
      id: 'redo',
      group: 'Sweep',
      title: 'Redo an edit of the sweep',
      keys: ['mod+shift+Z', 'mod+Y'],
      isPossible: () => app.draft.getState().future.length > 0,
      act: app.draft.redo,
    },
    { id: 'form', group: 'Sweep', title: 'Show the sweep form', act: () => view.setState({ left: 'sweep' }) },
    {
      id: 'machines',
      group: 'Sweep',
      title: 'Show the machines: fleet and servers',
      act: () => view.setState({ left: 'fleet' }),
    },
    {
      id: 'copy-command',
      group: 'Sweep',
      title: 'Copy the sweep as a command',
      isPossible: () => app.preview.getState().sweep !== undefined,
      act: copyCommand,
    },
    {
      id: 'library',
      group: 'Session',
      title: 'Open a session from the library',
      keys: ['mod+O'],
      act: () => showLibrary(app),
    },
    { id: 'add-file', group: 'Session', title: 'Add a session file…', act: () => chooseSessionFile(app) },
    ...examples.map(
      (example): Command => ({
        id: `example-${example.fileName}`,
        group: 'Session',
        title: `Open a session of an NVIDIA H100: ${example.label}`,
        isPossible: isIdle,
        act: () => void openExample(app, example),
      }),
    ),
    {
      id: 'save',
      group: 'Session',
      title: 'Save the session as a file',
      keys: ['mod+S'],
      isPossible: hasSession,
      act: withSession((id) => void saveSession(app, id, 'fmqa')),
    },
    {
      id: 'export',
      group: 'Session',
      title: 'Show the exports of the session',
      keys: ['mod+shift+E'],
      isPossible: hasSession,
      act: openSessionMenu,
    },
    ...exportFormats.map(
      (format): Command => ({
        id: `export-${format}`,
        group: 'Session',
        title: `Export as ${formatNames[format]}`,
        isPossible: hasSession,
        act: withSession((id) => void saveSession(app, id, format)),
      }),
    ),
    ...charts.map(
      ({ id, title }, i): Command => ({
        id: `chart-${id}`,
        group: 'Charts and table',
        title: `Show ${title}`,
        keys: [`alt+${i + 1}`],
        act: () => view.setState({ chart: id }),
      }),
    ),
    { id: 'filter', group: 'Charts and table', title: 'Filter points', keys: ['mod+F'], act: focusFilter },
    { id: 'table', group: 'Charts and table', title: 'Go to the table', act: focusTable },
    { id: 'inspector', group: 'Charts and table', title: 'Go to the inspector', act: focusInspector },
    {
      id: 'only-selected',
      group: 'Charts and table',
      title: 'Choose the selected points, dim the others',
      act: () => view.brush(view.getState().selected),
    },
    {
      id: 'step-back',
      group: 'Charts and table',
      title: 'Close what is pinned, then show all points again',
      keys: ['escape'],
      notIn: fields,
      act: view.stepBack,
    },
    {
      id: 'show-all',
      group: 'Charts and table',
      title: 'Show all points of every chart',
      act: () => view.setState({ filter: '', hiddenLevels: [], brushed: undefined, zoom: {}, phase: undefined }),
    },
    {
      id: 'commands',
      group: 'Window',
      title: 'Command palette',
      keys: ['mod+shift+P', 'mod+K'],
      act: show('commands'),
    },
    { id: 'next-pane', group: 'Window', title: 'Go to the next pane', keys: ['F6'], act: () => goToPane(1) },
    { id: 'last-pane', group: 'Window', title: 'Go to the pane before', keys: ['shift+F6'], act: () => goToPane(-1) },
    {
      id: 'keys',
      group: 'Window',
      title: 'Keyboard map',
      keys: ['?', 'shift+?', 'F1'],
      notIn: fields,
      act: show('keys'),
    },
    { id: 'theme', group: 'Window', title: 'Switch between dark and light', act: switchTheme },
  ];
}

/** In the order of the eye: what each pane would take the focus with. */
const panes = ['[data-pane="left"]', '[data-pane="centre"]', '[data-pane="right"]', '[data-pane="bottom"]'];
const focusable = '[role="application"], [role="grid"], [aria-label="Inspector"], input:not([hidden]), button:enabled';

function goToPane(step: 1 | -1): void {
  const at = panes.findIndex((pane) => document.activeElement?.closest(pane));
  const next = panes[(at + step + panes.length + (at === -1 && step === -1 ? 1 : 0)) % panes.length];
  const pane = document.querySelector(next);
  // What a pane is there for comes before the controls at its head.
  const [first] = focusable.split(', ').flatMap((selector) => pane?.querySelector<HTMLElement>(selector) ?? []);
  first?.focus();
}

/** Keys that a part of the window has while it holds the focus. */
export const localKeys: readonly { readonly where: string; readonly keys: readonly (readonly [string, string])[] }[] = [
  {
    where: 'A chart',
    keys: [
      ['arrows, Home, End', 'Go from point to point'],
      ['Shift with them', 'Add to the selection'],
      ['+  −  0', 'Zoom in, zoom out, show all'],
    ],
  },
  {
    where: 'The table',
    keys: [
      ['↑ ↓ PgUp PgDn Home End', 'Go from row to row'],
      ['Tab, ← →, Enter', 'Sort by a column'],
    ],
  },
  {
    where: 'The library',
    keys: [
      ['↑ ↓', 'Go from session to session'],
      ['Enter  F2  Delete', 'Open, rename, throw away'],
    ],
  },
  { where: 'A border between panes', keys: [['arrows', 'Move it']] },
];

const isMac = typeof navigator !== 'undefined' && /Mac/.test(navigator.platform);
const names: Readonly<Record<string, string>> = {
  mod: isMac ? '⌘' : 'Ctrl',
  shift: 'Shift',
  alt: isMac ? '⌥' : 'Alt',
  space: 'Space',
  escape: 'Esc',
};

/** `mod+shift+P` as a keyboard says it: Ctrl, Shift, P. */
export const keyCaps = (keys: string): string[] => keys.split('+').map((key) => names[key] ?? key);
