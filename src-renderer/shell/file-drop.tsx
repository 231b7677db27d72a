/** Files dropped anywhere on the window: sessions are taken into the library, a sweep (JSON) becomes the draft. */
import { useEffect, useState } from 'react';
import { useApp } from '../panels/use-app.ts';
import classes from './file-drop.module.css';

const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes('Files') ?? false;

export function FileDrop() {
  const app = useApp();
  const [isOver, setOver] = useState(false);
  useEffect(() => {
    const over = (event: DragEvent): void => {
      if (!hasFiles(event)) return;
      event.preventDefault(); // or the browser would leave the app and show the file
      setOver(true);
    };
    const leave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent): void => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(false);
      const files = [...(event.dataTransfer?.files ?? [])];
      const isSweep = ({ name }: File): boolean => /\.json$/i.test(name);
      for (const file of files.filter(isSweep)) void app.attempt(() => app.sweeps.openFile(file));
      const others = files.filter((file) => !isSweep(file));
      if (others.length > 0) void app.library.take(others);
    };
    const listeners = { dragover: over, dragleave: leave, drop };
    for (const [name, listener] of Object.entries(listeners)) window.addEventListener(name as 'drop', listener);
    return () => {
      for (const [name, listener] of Object.entries(listeners)) window.removeEventListener(name as 'drop', listener);
    };
  }, [app]);
  return isOver ? (
    <div className={classes.over}>
      Drop session files (*.fmqa): they are kept in the library. A sweep (*.json) is opened in the form.
    </div>
  ) : null;
}
