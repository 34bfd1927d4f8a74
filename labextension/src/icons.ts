import { LabIcon } from '@jupyterlab/ui-components';

/** Three sites and what they share. */
const MARK = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <circle cx="12" cy="4.5" r="3"/><circle cx="4.5" cy="18" r="3"/><circle cx="19.5" cy="18" r="3"/>
    <path d="M12 9.2 17 12v3.6l-5 2.9-5-2.9V12z"/>
  </g>
</svg>`;

export const markIcon = new LabIcon({ name: 'truststram-lab:mark', svgstr: MARK });
