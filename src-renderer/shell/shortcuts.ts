/** Keys that work anywhere in the window. */
import { useHotkeys } from '@mantine/hooks';
import { saveSession } from '../panels/session-items.tsx';
import { showLibrary } from '../panels/sessions-panel.tsx';
import { useApp } from '../panels/use-app.ts';
import { openSessionMenu } from './session-menu.tsx';

export function useShortcuts(): void {
  const app = useApp();
  const pauseOrContinue = (): void => {
    const { status } = app.run.getState().run;
    if (status === 'running') void app.steer('pause');
    if (status === 'paused') void app.steer('continue');
  };
  const saveAs = (): void => {
    const { session } = app.run.getState().run;
    if (session) void saveSession(app, session.id, 'fmqa');
  };
  // Text being typed has its own undo; buttons have their own use of the space bar.
  useHotkeys([['space', pauseOrContinue]], ['INPUT', 'TEXTAREA', 'SELECT', 'BUTTON']);
  useHotkeys([['escape', app.view.stepBack]], ['INPUT', 'TEXTAREA', 'SELECT']);
  useHotkeys(
    [
      ['mod+Z', app.draft.undo],
      ['mod+shift+Z', app.draft.redo],
      ['mod+Enter', () => void app.startRun()],
      ['mod+O', () => showLibrary(app)],
      ['mod+S', saveAs],
      ['mod+shift+E', openSessionMenu],
    ],
    [],
  );
}
